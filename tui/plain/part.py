"""Part: what one mode of the dialogue is. It takes lines of text, obeys commands, and can be stopped."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

import msgspec

from tfm.core.engine import protocol
from tfm.core.sampling.settings import SamplingSettings
from tfm.tui.client import Stream
from tfm.tui.session import Session
from tfm.tui.widgets.sampling_panel import Decoding
from tfm.tui.widgets.token_panel import ranked, visible_piece

if TYPE_CHECKING:
    from tfm.tui.plain.dialogue import Dialogue


class Part:
    """Subclasses say what becomes of a line."""

    NAME: ClassVar[str]
    DOES: ClassVar[str]  # one sentence: what to type

    def __init__(self, dialogue: Dialogue, decoding: Decoding | None = None) -> None:
        self.dialogue = dialogue
        self.speaker = dialogue.speaker
        self.client = dialogue.client
        self.decoding = decoding
        self.streams: set[Stream] = set()  # what is going on, and Ctrl+C stops
        self.stopped = False  # was it?

    @property
    def session(self) -> Session:
        return self.dialogue.sessions[self.NAME]

    async def take(self, text: str) -> None:
        """A line that is no command. Raises ValueError or EngineProblem with a sentence."""
        raise NotImplementedError

    async def stop(self) -> bool:
        """Stop what is going on, keeping what is there; was there something?"""
        streams = list(self.streams)
        self.stopped = bool(streams)
        for stream in streams:
            await stream.cancel()
        return bool(streams)

    def close(self) -> None:
        """The dialogue ends, perhaps in the middle of something: keep what is there."""

    async def open(self, request: protocol.Request) -> Stream:
        stream = await self.client.request(request)
        self.streams.add(stream)
        self.stopped = False
        return stream

    async def settle(self, stream: Stream) -> None:
        """The stream was read, or is not read any further."""
        self.streams.discard(stream)
        if not stream.ended:
            await asyncio.shield(stream.cancel())

    # ------------------------------------------------------------------ knobs
    async def decode_with(self, decoding: Decoding) -> None:
        """Other settings, also for what is being written now."""
        self.decoding = decoding
        for stream in self.streams:
            if isinstance(stream.request, protocol.Generate):
                await self.client.tell(protocol.Tune(id=0, target=stream.id, settings=decoding.settings))

    async def set(self, settings: SamplingSettings) -> None:
        assert self.decoding is not None
        await self.decode_with(msgspec.structs.replace(self.decoding, settings=settings, method="sample"))

    # ------------------------------------------------------------------ tokens
    def say_tokens(self, tokens: list[protocol.Token]) -> None:
        """One line a token: its number, itself, how likely it was."""
        if not tokens:
            raise ValueError("There are no tokens to show: they are known after something was written here.")
        for place, token in enumerate(tokens, 1):
            mark = ", new settings from here" if token.settings_mark else ""
            self.speaker.say(
                f"{place}: {visible_piece(token.piece)}, probability {token.probability:.2f}, "
                f"log p {token.logprob:.2f}, entropy {token.entropy:.2f}{mark}"
            )

    def say_rivals(self, tokens: list[protocol.Token], text: str) -> None:
        """The candidates of one token, numbered as ``/take`` takes them."""
        place = number_of_token(tokens, text)
        for rank, rival in enumerate(ranked(tokens[place - 1]), 1):
            drawn = " (drawn)" if rival.token == tokens[place - 1].token else ""
            gone = f", removed by {rival.removed_by}" if rival.removed_by else ""
            self.speaker.say(
                f"{rank}: {visible_piece(rival.piece)}, {rival.final:.2f} in the draw, "
                f"{rival.raw:.2f} by the model{gone}{drawn}"
            )


def number_of_token(tokens: list[protocol.Token], text: str) -> int:
    """Raises ValueError where it is none of them."""
    from tfm.tui.plain.commands import number

    if not tokens:
        raise ValueError("There are no tokens yet.")
    return number(text or str(len(tokens)), "A token", 1, len(tokens))
