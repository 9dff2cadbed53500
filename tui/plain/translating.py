"""Translate: a line is a sentence, and its translation is said."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from tfm.core.engine import protocol
from tfm.tui.client import EngineProblem, Stream
from tfm.tui.exchange import Exchange
from tfm.tui.export import Page, notebook_json, notebook_page
from tfm.tui.notebook import Notebook
from tfm.tui.plain.commands import command, number
from tfm.tui.plain.kept import KeptPart
from tfm.tui.widgets.sampling_panel import Decoding
from tfm.tui.works import translations

if TYPE_CHECKING:
    from tfm.tui.plain.dialogue import Dialogue

MAX_BEAM = 16


class Translating(KeptPart[Notebook]):
    NAME = "translate"
    DOES = "Type a sentence and Enter to translate it."

    def __init__(self, dialogue: Dialogue) -> None:
        super().__init__(dialogue, Decoding(), translations())
        self.work = Notebook()

    @property
    def history(self) -> list[Exchange]:
        return self.work.exchanges

    def fresh(self) -> Notebook:
        return Notebook(decoding=self.work.decoding)

    def use(self, work: Notebook) -> None:
        super().use(work)
        self.decoding = work.decoding

    def written(self) -> tuple[Page, Callable[[], bytes]]:
        return notebook_page(self.work), lambda: notebook_json(self.work)

    @property
    def exchange(self) -> Exchange:
        if not self.history:
            raise ValueError("Nothing was translated yet: type a sentence.")
        return self.history[-1]

    @property
    def tokens(self) -> list[protocol.Token]:
        return [token for line in self.exchange.tokens for token in line]

    async def take(self, text: str) -> None:
        model = await self.session.ready()
        assert self.decoding is not None
        exchange = Exchange(text, self.decoding)
        self.work.started = self.work.started or time.time()
        self.work.decoding = self.decoding
        self.work.add(exchange)
        await self._write(exchange, exchange.request(model))

    async def _write(self, exchange: Exchange, request: protocol.Request) -> None:
        stream: Stream | None = None
        try:
            stream = await self.open(request)
            async for event in stream:
                exchange.apply(event)
                if isinstance(event, protocol.Token):
                    self.speaker.stream(event.piece)
        except EngineProblem as problem:
            exchange.problem = str(problem)
            self.speaker.end()
            if exchange.text:
                self.speaker.note("Broken off; /continue goes on, /again translates it anew.")
            raise
        finally:
            exchange.ended = True
            if stream is not None:
                await self.settle(stream)
            await self.keep()
        if any(exchange.tokens):
            self.speaker.end()
        else:
            self.speaker.say(exchange.text)
        self._say_figures(exchange)

    def _say_figures(self, exchange: Exchange) -> None:
        if self.speaker.by_hand:
            stopped = "Stopped. " if exchange.cancelled else ""
            rate = f", {exchange.rate:.0f} a second" if exchange.rate else ""
            self.speaker.note(f"{stopped}{exchange.n_tokens} tokens{rate}, log p {exchange.logprob:.1f}.")

    @command("again", help="Translate the same text again, with the knobs as they are now.")
    async def again(self, _text: str) -> None:
        await self.take(self.exchange.source)

    @command("continue", help="Go on with a translation that was stopped or broken off.")
    async def go_on(self, _text: str) -> None:
        exchange = self.exchange
        if not exchange.unfinished:
            raise ValueError("This translation is at its end: /again makes another one.")
        await self._write(exchange, exchange.go_on(await self.session.ready()))

    @command("beam", arguments="[WIDTH]", help="Translate by beam search.")
    async def beam(self, text: str) -> None:
        assert self.decoding is not None
        width = number(text, "A beam's width", 1, MAX_BEAM) if text else self.decoding.beam_width
        self.decoding = msgspec.structs.replace(self.decoding, method="beam", beam_width=width)
        self.speaker.note(f"Beam search, {width} wide.")

    @command("sample", help="Translate by sampling, which the knobs steer.")
    async def sample(self, _text: str) -> None:
        assert self.decoding is not None
        self.decoding = msgspec.structs.replace(self.decoding, method="sample")
        self.speaker.note("Sampling.")

    @command("tokens", help="The tokens of the last translation, and how likely each was.")
    async def tokens_said(self, _text: str) -> None:
        self.say_tokens(self.tokens)

    @command("rivals", arguments="[TOKEN]", help="What could have stood in a token's place.")
    async def rivals(self, text: str) -> None:
        self.say_rivals(self.tokens, text)

    @command("earlier", arguments="[N]", help="Earlier translations; with a number, that one in full.")
    async def earlier(self, text: str) -> None:
        _ = self.exchange
        if text:
            chosen = self.history[number(text, "A translation", 1, len(self.history)) - 1]
            self.speaker.say(chosen.source)
            self.speaker.say(chosen.text)
            return
        for place, exchange in enumerate(self.history, 1):
            self.speaker.say(f"{place}: {exchange.source} -> {exchange.text}")
