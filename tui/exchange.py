"""An exchange: one text given, one text made, and every token on the way. Pure data, no widgets."""

from __future__ import annotations

import time

import msgspec

from tfm.core.engine import protocol
from tfm.tui.marks import meaning, of_tokens
from tfm.tui.widgets.sampling_panel import Decoding


class Exchange(msgspec.Struct, dict=True, eq=False, omit_defaults=True):
    """Gathers the events of one Generate or Beam request; what is a field here is kept on disk.

    A source of several lines is several lanes; a blank line stays blank and takes no lane, so
    ``places`` gives for each lane the line it belongs to.
    """

    source: str
    decoding: Decoding
    model: str = ""
    tokens: list[list[protocol.Token]] = []  # by line
    beams: list[tuple[protocol.BeamHypothesis, ...]] = []
    done: list[protocol.LaneDone | None] = []
    problem: str = ""
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError where a file's lists are not those of its lines."""
        self.lines = self.source.split("\n")
        self.places = [n for n, line in enumerate(self.lines) if line.strip()]
        self._asked = self.places  # for each lane of the request that is going on: its line
        self.ended = bool(self.tokens)  # it comes from a file
        n_lines = len(self.lines)
        self.tokens = self.tokens or [[] for _ in range(n_lines)]
        self.beams = self.beams or [()] * n_lines
        self.done = self.done or [None] * n_lines
        if not len(self.tokens) == len(self.beams) == len(self.done) == n_lines:
            raise ValueError(f"an exchange of {n_lines} lines holds the tokens of {len(self.tokens)}")
        if self.ended and not self.problem and any(self.done[place] is None for place in self.places):
            self.cancelled = True  # the app ended before the translation did
        self.rate = 0.0
        self._n_tokens = sum(len(line) for line in self.tokens)
        self._logprob = sum(token.logprob for line in self.tokens for token in line)
        self._first = self._last = 0.0

    def forget_rivals(self) -> None:
        """Keep what was drawn and let go of what else could have been."""
        for line in self.tokens:
            line[:] = [msgspec.structs.replace(token, top=(), trace=()) for token in line]

    def request(self, model: protocol.ModelLoaded) -> protocol.Generate | protocol.Beam:
        """The request that makes this exchange's text."""
        self.model = model.info.name
        self._asked = self.places
        sources = [self.lines[place].strip() for place in self.places]
        longest = min(model.info.max_positions, 256)
        now = self.decoding
        if now.method == "beam":
            return protocol.Beam(
                id=0, model=model.info.name, sources=tuple(sources), width=now.beam_width, max_tokens=longest
            )
        lanes = tuple(protocol.Lane(prompt=s, settings=now.settings, seed=now.seed) for s in sources)
        return protocol.Generate(id=0, model=model.info.name, lanes=lanes, max_tokens=longest)

    @property
    def unfinished(self) -> list[int]:
        """The lines whose translation was stopped or broken off, and can be gone on with."""
        if self.decoding.method == "beam" or not self.ended:
            return []
        ends = [(place, self.done[place]) for place in self.places]
        return [place for place, done in ends if done is None or done.reason == "cancelled"]

    def go_on(self, model: protocol.ModelLoaded) -> protocol.Generate:
        """The request that writes those lines to their ends, each from its tokens so far."""
        self._asked = self.unfinished
        self.problem, self.cancelled, self.ended = "", False, False
        now = self.decoding
        lanes = []
        for place in self._asked:
            self.done[place] = None
            prefix = tuple(token.token for token in self.tokens[place])
            source = self.lines[place].strip()
            lanes.append(protocol.Lane(prompt=source, settings=now.settings, seed=now.seed, prefix=prefix))
        longest = min(model.info.max_positions, 256)
        self.model = self.model or model.info.name
        return protocol.Generate(id=0, model=self.model, lanes=tuple(lanes), max_tokens=longest)

    def apply(self, event: protocol.Event) -> int | None:
        """Take in an event; the line that it belongs to, where it belongs to one."""
        match event:
            case protocol.Token():
                place = self._asked[event.lane]
                self.tokens[place].append(event)
                self._n_tokens += 1
                self._logprob += event.logprob
                self._last = time.monotonic()
                self._first = self._first or self._last
                if self._last > self._first:
                    self.rate = (self._n_tokens - 1) / (self._last - self._first)
                return place
            case protocol.BeamStep():
                place = self._asked[event.lane]
                self.beams[place] = event.hypotheses
                return place
            case protocol.LaneDone():
                place = self._asked[event.lane]
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
            return self._logprob
        return sum(done.logprob for done in self.done if done)

    @property
    def newest(self) -> protocol.Token | None:
        lines = [line[-1] for line in self.tokens if line]
        return lines[-1] if lines else None

    @property
    def text(self) -> str:
        """The translation, a line for each line of the source."""
        return "\n".join(self._line(place) for place in range(len(self.lines)))

    @property
    def turned(self) -> bool:
        """Was a knob turned while it was written?"""
        return any(token.settings_mark for line in self.tokens for token in line)

    def mark_text(self, place: int, token: int) -> str:
        """What the mark of a token says; empty where it has none."""
        if not self.tokens[place][token : token + 1] or not self.tokens[place][token].settings_mark:
            return ""
        marks = of_tokens(self.tokens[place][: token + 1])
        return meaning(self.decoding.settings, marks, len(marks) - 1) if marks else ""

    def _line(self, place: int) -> str:
        done = self.done[place]
        if done is not None:
            return done.text
        if self.beams[place]:
            return self.beams[place][0].text
        return "".join(token.piece for token in self.tokens[place])
