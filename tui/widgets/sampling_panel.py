"""The sampling panel: the knobs that matter most, what else is on, the seed and how the text is decoded."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tfm.core.sampling.settings import PRESETS, SamplingSettings
from tfm.tui import chain
from tfm.tui.presets import OWN, Found
from tfm.tui.widgets import knobs
from tfm.tui.widgets.cells import Row, Span, spread
from tfm.tui.widgets.lines import Lines, name_box

NUMBERED_FROM = 44  # columns; from here on each stage shows its place in the order
_IN_PLACE = frozenset(chain.STAGE_OF[knob.field].name for knob in knobs.MAIN)
MOST_CHANGED = 4
_FEWEST = 3  # rows; with less room for the other stages they are only counted


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
        self.presets = Found()
        self.base = self.presets.name_of(decoding.settings)  # the preset that was on last

    def know(self, presets: Found) -> None:
        """These presets are there."""
        self.presets = presets
        self.base = presets.name_of(self._decoding.settings) or (
            self.base if self.base in presets.all else None
        )
        self.repaint()

    @property
    def decoding(self) -> Decoding:
        return self._decoding

    @decoding.setter
    def decoding(self, value: Decoding) -> None:
        self._decoding = value
        self.base = self.presets.name_of(value.settings) or self.base
        self._entitle()
        self.repaint()

    def _entitle(self) -> None:
        sampling = self._decoding.method == "sample"
        order = f"order {chain.order_name(self._decoding.settings.order)}"
        name_box(self, title="Sampling" if sampling else "Beam search", subtitle=order if sampling else "")

    def on_mount(self) -> None:
        self._entitle()

    def build(self, columns: int) -> Sequence[Sequence[Span]]:
        now = self._decoding
        sampling = now.method == "sample"
        rows: list[Sequence[Span]] = [self._knob(knob, columns, sampling) for knob in knobs.MAIN]
        preset: Row = (
            ("preset       ", "dim"),
            *preset_spans(now.settings, self.presets, self.base, columns - 19),
        )
        drawn = sampling and now.settings.temperature > 0
        seed: Row = (("seed         ", "dim"), (str(now.seed), "" if drawn else "dim"))
        unused = ("" if drawn else "  unused", "faint")
        ways = (*_choice("Sample", sampling), ("  ", ""), *_choice(f"Beam {now.beam_width}", not sampling))
        below = [
            spread(preset, (("[ ] O", "key"),), columns),
            spread((*seed, unused), (("s S", "key"),), columns),
        ]
        if self._beams:
            below.append(spread(ways, (("d w W", "key"),), columns))
        return [*rows, *self._others(columns, self.size.height - len(rows) - len(below), sampling), *below]

    def _others(self, columns: int, room: int, sampling: bool) -> list[Row]:
        """The stages that have no knob here: a row each where there is room, those that are on first."""
        settings = self._decoding.settings
        order = [*settings.order, *(s.name for s in chain.STAGES if s.name not in settings.order)]
        others = [chain.BY_NAME[name] for name in order if name not in _IN_PLACE]
        on = [stage for stage in others if not chain.is_neutral(settings, stage.name)]
        if room < max(_FEWEST, 2):
            labels = ", ".join(stage.label for stage in on)
            told = f"{len(on)} more on: {labels}" if on else f"{len(others)} more stages, all neutral"
            return [spread(((told, "" if on and sampling else "dim"),), ((" o", "key"),), columns)]
        shown = others
        if len(others) > room - 1:
            first = [*on, *(stage for stage in others if stage not in on)][: room - 1]
            shown = [stage for stage in others if stage in first]
        left = len(others) - len(shown)
        told = f"and {left} more" if left else "the other stages, in their order"
        rows = [self._stage(stage, columns, sampling) for stage in shown]
        return [*rows, spread(((told, "faint"),), ((" o", "key"),), columns)]

    def _stage(self, stage: chain.Stage, columns: int, sampling: bool) -> Row:
        settings = self._decoding.settings
        state = chain.state(settings, stage.name)
        on = state == "on" and sampling
        value = chain.stage_text(settings, stage)
        note = {"left out": "  left out", "replaced": f"  {chain.replaced_by(stage.name)} is on"}.get(
            state, ""
        )
        return (
            *self._number(stage.name, columns),
            (f"{stage.label:<20}", "" if on else "dim"),
            (value, "strong" if on else "dim"),
            (note, "faint"),
        )

    def _number(self, stage: str, columns: int) -> Row:
        """Its place in the order, where there is room for it."""
        if columns < NUMBERED_FROM:
            return ()
        order = self._decoding.settings.order
        return ((f"{order.index(stage) + 1:>2} " if stage in order else " – ", "faint"),)

    def _knob(self, knob: knobs.Knob, columns: int, sampling: bool) -> Sequence[Span]:
        value = knobs.value_of(self._decoding.settings, knob)
        text = knobs.format_value(knob, value)
        stage = chain.STAGE_OF[knob.field].name
        neutral = value == knob.neutral or chain.state(self._decoding.settings, stage) != "on"
        left: list[Span] = [
            *self._number(stage, columns),
            (f"{knob.label:<13}", "" if sampling and not neutral else "dim"),
            (f"{text:<6}", "strong" if sampling and not neutral else "dim"),
        ]
        room = columns - sum(len(text) for text, _ in left) - 5
        state = chain.state(self._decoding.settings, stage)
        if room >= 5 and state in ("left out", "replaced"):
            why = "left out" if state == "left out" else f"{chain.replaced_by(stage)} is on"
            left.append((why[:room], "faint"))
        elif room >= 5:
            track = knobs.slider(knob, value, min(room, 21))
            left += track if sampling else [(text, "faint") for text, _ in track]
        return spread(tuple(left), ((knob.keys, "key"),), columns)


def _choice(label: str, chosen: bool) -> tuple[Span, Span]:
    return (("● " if chosen else "○ "), "live" if chosen else "faint"), (label, "strong" if chosen else "dim")


def preset_spans(settings: SamplingSettings, presets: Found, base: str | None, columns: int = 80) -> Row:
    """The preset's name, and how much was changed since: in words, where there is room for them."""
    name = presets.name_of(settings)
    if name is not None or base is None or base not in presets.all:
        return ((name or OWN, ""),)
    n = len(chain.differing(settings, presets.all[base]))
    if n > MOST_CHANGED:  # so much that it is no help to name it
        return ((OWN, ""),)
    words = f", {n} changed"
    return ((base, ""), (words if len(base) + len(words) <= columns else f" *{n}", "live"))
