"""The sampling panel: the knobs that matter most, the seed and how the text is decoded."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tfm.core.sampling.settings import PRESETS, SamplingSettings
from tfm.tui.widgets import knobs
from tfm.tui.widgets.cells import Span, spread
from tfm.tui.widgets.lines import Lines, name_box


class Decoding(msgspec.Struct, frozen=True, kw_only=True):
    """How the next text is made."""

    method: str = "sample"  # or "beam"
    settings: SamplingSettings = PRESETS["greedy"]
    seed: int = 1
    beam_width: int = 5


class SamplingPanel(Lines):
    """Draws a :class:`Decoding`; the keys are the screen's. ``beams``: can it search, too?"""

    def __init__(
        self,
        decoding: Decoding = Decoding(),  # noqa: B008  a frozen record
        *,
        beams: bool = True,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self._decoding = decoding
        self._beams = beams

    @property
    def decoding(self) -> Decoding:
        return self._decoding

    @decoding.setter
    def decoding(self, value: Decoding) -> None:
        self._decoding = value
        self._entitle()
        self.repaint()

    def _entitle(self) -> None:
        name_box(self, title="Sampling" if self._decoding.method == "sample" else "Beam search")

    def on_mount(self) -> None:
        self._entitle()

    def build(self, columns: int) -> Sequence[Sequence[Span]]:
        now = self._decoding
        sampling = now.method == "sample"
        rows: list[Sequence[Span]] = [self._knob(knob, columns, sampling) for knob in knobs.MAIN]
        on = [f for f in now.settings.active() if f in knobs.SWITCHES]
        n_others = len(knobs.SWITCHES)
        others = f"{len(on)} more on: {', '.join(on)}" if on else f"{n_others} more stages, all neutral"
        preset = (("preset       ", "dim"), (knobs.preset_name(now.settings), ""))
        drawn = sampling and now.settings.temperature > 0
        seed = (("seed         ", "dim"), (str(now.seed), "" if drawn else "dim"))
        unused = ("" if drawn else "  unused", "faint")
        ways = (*_choice("Sample", sampling), ("  ", ""), *_choice(f"Beam {now.beam_width}", not sampling))
        rows.append(spread(((others, "" if on and sampling else "dim"),), (("o", "key"),), columns))
        rows.append(spread(preset, (("[ ]", "key"),), columns))
        rows.append(spread((*seed, unused), (("s S", "key"),), columns))
        if self._beams:
            rows.append(spread(ways, (("d w W", "key"),), columns))
        return rows

    def _knob(self, knob: knobs.Knob, columns: int, sampling: bool) -> Sequence[Span]:
        value = knobs.value_of(self._decoding.settings, knob)
        text = knobs.format_value(knob, value)
        neutral = value == knob.neutral
        left: list[Span] = [
            (f"{knob.label:<13}", "" if sampling and not neutral else "dim"),
            (f"{text:<6}", "strong" if sampling and not neutral else "dim"),
        ]
        room = columns - 13 - 6 - 5
        if room >= 5:
            track = knobs.slider(knob, value, min(room, 21))
            left += track if sampling else [(text, "faint") for text, _ in track]
        return spread(tuple(left), ((knob.keys, "key"),), columns)


def _choice(label: str, chosen: bool) -> tuple[Span, Span]:
    return (("● " if chosen else "○ "), "live" if chosen else "faint"), (label, "strong" if chosen else "dim")
