"""Commands of the dialogue: a method that obeys one says so itself, and help is made from that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple, TypeVar

Method = TypeVar("Method", bound=Callable[..., Awaitable[None]])


class Command(NamedTuple):
    """What is typed behind the slash, and what it does."""

    names: tuple[str, ...]  # the first is its own, the others are short for it
    arguments: str
    help: str
    at_once: bool  # may be given while text is being written
    obey: Callable[[str], Awaitable[None]]

    @property
    def usage(self) -> str:
        return f"/{self.names[0]} {self.arguments}".rstrip()


def command(*names: str, arguments: str = "", help: str, at_once: bool = False) -> Callable[[Method], Method]:
    """The method is called with what follows the command's name, which may be empty."""

    def mark(method: Method) -> Method:
        method.__dict__["command"] = (names, arguments, help, at_once)
        return method

    return mark


def commands_of(owner: Any) -> Iterator[Command]:
    """The commands that an object's methods obey, in the order in which they were written down."""
    for kind in reversed(type(owner).__mro__):
        for name, method in vars(kind).items():
            if (marked := getattr(method, "command", None)) is not None:
                names, arguments, help, at_once = marked
                yield Command(names, arguments, help, at_once, getattr(owner, name))


def number(text: str, what: str, low: int = 1, high: int = 2**63 - 1) -> int:
    """Raises ValueError with a sentence."""
    if not text.isdigit() or not low <= int(text) <= high:
        top = f" to {high:,}" if high < 2**62 else " up"
        raise ValueError(f"{what} is a whole number from {low}{top}, not {text!r}.")
    return int(text)
