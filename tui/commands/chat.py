"""``chat``: talk with a model, turn by turn."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from tfm.tui.commands.lines import LineReader, checked_text
from tfm.tui.commands.loading import Choice, load, model_options
from tfm.tui.commands.output import emit, json_option, note, say, to_terminal
from tfm.tui.commands.sampling import Sampling, sampling_options
from tfm.tui.commands.translate import as_line

if TYPE_CHECKING:
    from tfm.core.checkpoint import Checkpoint
    from tfm.core.generate import LaneFinished

DEFAULT_CHAT = "smollm2"
BUNDLED_CHAT = "chitchat-en"  # what there is where nothing was fetched
PREFIX_BYTES = 1 << 30  # what is kept of the conversation, so that a turn costs only its own tokens


@click.command()
@click.argument("text", required=False)
@model_options(default=DEFAULT_CHAT)
@click.option("--system", metavar="TEXT", help="Tell the model first how to behave.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=512, show_default=True, metavar="N",
              help="End a reply after N tokens.")  # fmt: skip
@click.option("--stop", multiple=True, metavar="TEXT", help="End a reply before this text. Repeatable.")
@sampling_options
@json_option
def chat(
    text: str | None, choice: Choice, system: str | None, max_tokens: int, stop: tuple[str, ...],
    sampling: Sampling, as_json: bool,
) -> None:  # fmt: skip
    """Talk with a model.

    TEXT gets one reply. Without it each line of stdin is a turn of one conversation; in a pipe each reply is
    a line too, its line breaks turned to spaces (--json keeps them). On a terminal Ctrl+C ends a reply and
    Ctrl+D the conversation. The preset is "chat" where none is given.
    """
    if text is not None:
        text = checked_text(text)
    sampling = sampling.or_preset("chat")
    checkpoint = load(_there(choice), "decoder-only")
    from tfm.core.chat import require_template

    require_template(checkpoint)
    sampling.tell_seed()
    talk = Conversation(checkpoint, system, sampling, max_tokens, stop)
    by_hand = sys.stdin.isatty() and not as_json
    if text is not None:
        _answer(talk, text, as_json, one_line=False)
    elif by_hand and to_terminal():
        note("Ctrl+C ends a reply, Ctrl+D the conversation")
        for line in _typed():
            _answer(talk, line, as_json, one_line=False)
            say()
    else:
        for chunk in LineReader(sys.stdin.fileno()).chunks(1):
            for _, line in chunk:
                if line.strip():
                    _answer(talk, line, as_json, one_line=True)
                elif not as_json:
                    say()


def _there(choice: Choice) -> Choice:
    """The choice, or what is bundled where the default was not fetched yet."""
    from tfm.core.catalog import NoSuchCheckpoint, find_checkpoint

    try:
        find_checkpoint(choice.model)
        return choice
    except NoSuchCheckpoint:
        if choice.model != DEFAULT_CHAT:
            raise
    fetch = f"`tfm-tui pull {DEFAULT_CHAT}` fetches a chat model (93 MB)"
    try:
        find_checkpoint(BUNDLED_CHAT)
    except NoSuchCheckpoint:
        raise ValueError(f"there is no model to chat with yet: {fetch}, or name one with -m") from None
    note(f"talking with {BUNDLED_CHAT}; {fetch}")
    return choice._replace(model=BUNDLED_CHAT)


class Conversation:
    """The turns so far, and what every reply is made with."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        system: str | None,
        sampling: Sampling,
        max_tokens: int,
        stop: tuple[str, ...],
    ) -> None:
        from tfm.core.engine.sessions import PrefixCache

        self.messages: list[dict[str, str]] = []
        if system is not None:
            self.messages.append({"role": "system", "content": system})
        self.n_left_out = 0
        self._n_replies = 0
        self._checkpoint, self._sampling = checkpoint, sampling
        self._max_tokens, self._stop = max_tokens, stop
        self._prefixes = PrefixCache(PREFIX_BYTES)

    @property
    def seed(self) -> int:
        """Of the next reply: another one each time, and the same ones from the same start."""
        return self._sampling.seed + self._n_replies

    def reply(self, text: str, show: Callable[[str], None], should_stop: Callable[[], bool]) -> LaneFinished:
        """The model's answer to a turn; both are part of the conversation then."""
        from tfm.core.engine.protocol import Lane
        from tfm.core.generate import LaneFinished, generate

        self.messages.append({"role": "user", "content": text})
        lane = Lane(
            prompt="", messages=tuple(self.messages), settings=self._sampling.settings, seed=self.seed
        )
        finished: LaneFinished | None = None
        for event in generate(
            self._checkpoint, [lane], max_tokens=self._max_tokens, stop=self._stop, n_top=0,
            should_stop=should_stop, prefix_cache=self._prefixes,
        ):  # fmt: skip
            if isinstance(event, LaneFinished):
                finished = event
            else:
                show(event.piece)
        assert finished is not None
        self.messages.append({"role": "assistant", "content": finished.text})
        self._n_replies += 1
        return finished


def _answer(talk: Conversation, text: str, as_json: bool, one_line: bool) -> None:
    live = to_terminal() and not as_json and not one_line
    seed = talk.seed
    with _interruptible() as interrupted:
        finished = talk.reply(
            text, (lambda piece: say(piece, end="")) if live else (lambda piece: None), interrupted
        )
    if as_json:
        emit(_record(finished, text, seed))
    elif live:
        say()
    else:
        say(as_line(finished.text) if one_line else finished.text)
    left_out = len(finished.dropped_turns)
    if left_out > talk.n_left_out and not as_json:
        note(f"the context is full: the model no longer sees the first {left_out} messages")
    talk.n_left_out = left_out
    if interrupted() and not live:
        raise KeyboardInterrupt


def _record(finished: LaneFinished, text: str, seed: int) -> dict[str, Any]:
    return {
        "prompt": text, "text": finished.text, "reason": finished.reason, "logprob": finished.logprob,
        "n_prompt": finished.n_prompt, "n_tokens": len(finished.tokens), "tokens": finished.tokens,
        "dropped_turns": finished.dropped_turns, "seed": seed,
    }  # fmt: skip


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl+C ends the reply and keeps what is there; a second one ends the program."""
    pressed = False

    def press(_signal: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _typed() -> Iterator[str]:
    """What a person types, line by line, with the line editing that Python has."""
    import contextlib

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  gives input() its editing keys
    while True:
        try:
            line = input("> ")
        except EOFError:
            say()
            return
        except UnicodeDecodeError:
            note("that was not valid UTF-8; try again")
            continue
        if line.strip():
            yield line
