"""A work as JSON while it is still being written, without holding up who writes and who looks.

What may still change (lists, structs that are not frozen) is copied first, which takes microseconds; the
copy is then encoded by another thread, a few hundred items at a time, because no other thread runs
while a piece is encoded: fifty thousand tokens in one piece would stop the screen for half a second.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

PIECE = 256  # items encoded at once
_HOLE = msgspec.Raw(b"\0")  # where the JSON of a field goes; in a string this byte is written in another way

T = TypeVar("T")


def snapshot(value: T) -> T:
    """The value as it is now, whatever happens to it later. What is frozen is shared."""
    if isinstance(value, list):
        return [snapshot(item) for item in value] if _holds_growing(value) else value[:]  # type: ignore[return-value]
    if not _grows(value):
        return value
    copied = copy.copy(value)
    for name in copied.__struct_fields__:  # type: ignore[attr-defined]
        if _grows(field := getattr(copied, name)):
            setattr(copied, name, snapshot(field))
    return copied


def pieces(value: Any) -> Iterator[bytes]:
    """JSON of a snapshot, which is used up, in pieces to be written one after the other: none of them is so
    long that making it could be felt. Lists begin a new line now and then."""
    if isinstance(value, list):
        yield b"["
        if _holds_growing(value):
            for number, item in enumerate(value):
                yield b",\n" if number else b""
                yield from pieces(item)
        else:
            for at in range(0, len(value), PIECE):
                yield (b",\n" if at else b"") + msgspec.json.encode(value[at : at + PIECE])[1:-1]
        yield b"]"
        return
    fields: list[Any] = []
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            if _grows(field := getattr(value, name)) and field != []:
                fields.append(field)
                setattr(value, name, _HOLE)
    first, *others = msgspec.json.encode(value).split(bytes(_HOLE))
    yield first
    for field, after in zip(fields, others, strict=True):
        yield from pieces(field)
        yield after


def _grows(value: object) -> bool:
    return isinstance(value, list) or (
        isinstance(value, msgspec.Struct) and not value.__struct_config__.frozen
    )


def _holds_growing(values: list[Any]) -> bool:
    """Lists hold one kind of thing, or nothing in its place."""
    return _grows(next((value for value in values if value is not None), None))
