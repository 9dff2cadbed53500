"""An exchange: one text given, one text made, and every token on the way. Pure data, no widgets."""

from __future__ import annotations

import time

from tfm.core.engine import protocol
from tfm.tui.widgets.sampling_panel import Decoding


class Exchange:
    """Gathers the events of one Generate or Beam request.

    A source of several lines is several lanes; a blank line stays blank and takes no lane, so
    ``places`` gives for each lane the line it belongs to.
    """

    def __init__(self, source: str, decoding: Decoding) -> None:
        self.source = source
        self.decoding = decoding
        self.lines = source.split("\n")
        self.places = [n for n, line in enumerate(self.lines) if line.strip()]
        self.tokens: list[list[protocol.Token]] = [[] for _ in self.lines]
        self.beams: list[tuple[protocol.BeamHypothesis, ...]] = [() for _ in self.lines]
        self.done: list[protocol.LaneDone | None] = [None for _ in self.lines]
        self.rate = 0.0
        self.problem = ""
        self.ended = False
        self.cancelled = False
        self._n_tokens = 0
        self._first = self._last = 0.0

    def request(self, model: protocol.ModelLoaded) -> protocol.Generate | protocol.Beam:
        """The request that makes this exchange's text."""
        sources = [self.lines[place].strip() for place in self.places]
        longest = min(model.info.max_positions, 256)
        now = self.decoding
        if now.method == "beam":
            return protocol.Beam(
                id=0, model=model.info.name, sources=tuple(sources), width=now.beam_width, max_tokens=longest
            )
        lanes = tuple(protocol.Lane(prompt=s, settings=now.settings, seed=now.seed) for s in sources)
        return protocol.Generate(id=0, model=model.info.name, lanes=lanes, max_tokens=longest)

    def apply(self, event: protocol.Event) -> int | None:
        """Take in an event; the line that it belongs to, where it belongs to one."""
        match event:
            case protocol.Token():
                place = self.places[event.lane]
                self.tokens[place].append(event)
                self._n_tokens += 1
                self._last = time.monotonic()
                self._first = self._first or self._last
                if self._last > self._first:
                    self.rate = (self._n_tokens - 1) / (self._last - self._first)
                return place
            case protocol.BeamStep():
                place = self.places[event.lane]
                self.beams[place] = event.hypotheses
                return place
            case protocol.LaneDone():
                place = self.places[event.lane]
                self.done[place] = event
                self.cancelled = self.cancelled or event.reason == "cancelled"
                return place
            case protocol.Done():
                self.rate = event.tokens_per_second or self.rate
                self.ended = True
        return None

    @property
    def n_tokens(self) -> int:
        return self._n_tokens or sum(len(done.tokens) for done in self.done if done)

    @property
    def logprob(self) -> float:
        """Of everything that was made, in nats."""
        if any(self.tokens):
            return sum(token.logprob for line in self.tokens for token in line)
        return sum(done.logprob for done in self.done if done)

    @property
    def newest(self) -> protocol.Token | None:
        lines = [line[-1] for line in self.tokens if line]
        return lines[-1] if lines else None

    @property
    def text(self) -> str:
        """The translation, a line for each line of the source."""
        return "\n".join(self._line(place) for place in range(len(self.lines)))

    def _line(self, place: int) -> str:
        done = self.done[place]
        if done is not None:
            return done.text
        if self.beams[place]:
            return self.beams[place][0].text
        return "".join(token.piece for token in self.tokens[place])
