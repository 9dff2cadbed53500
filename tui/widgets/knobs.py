"""The knobs of the sampling chain: how each one is named, stepped and drawn. Pure functions."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

from tfm.core.sampling.settings import NEUTRAL, SamplingSettings
from tfm.tui.widgets.cells import Span


class Knob(NamedTuple):
    """One field of SamplingSettings and the values that its keys step through."""

    field: str
    label: str
    stops: tuple[float, ...]
    help: str
    keys: str = ""  # as shown beside it

    @property
    def neutral(self) -> float:
        return float(getattr(NEUTRAL, self.field))

    @property
    def whole(self) -> bool:
        return isinstance(getattr(NEUTRAL, self.field), int)


def _steps(low: float, high: float, step: float) -> tuple[float, ...]:
    return tuple(round(low + i * step, 6) for i in range(round((high - low) / step) + 1))


_SHARE = _steps(0.0, 1.0, 0.05)
_NEAR_ONE = (*_steps(0.05, 0.9, 0.05), 0.92, 0.95, 0.97, 0.98, 0.99, 1.0)
_LADDER = (0, 1, 2, 3, 5, 10, 20, 30, 40, 50, 80, 100, 200, 500, 1000)
_TINY = (0.0, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.02, 0.05, 0.1)

MAIN = (
    Knob("temperature", "temperature", _steps(0.0, 2.0, 0.05), "sharper below 1", "t T"),
    Knob("top_p", "top-p", _NEAR_ONE, "the top set of this mass", "p P"),
    Knob("min_p", "min-p", (*_steps(0.0, 0.1, 0.01), *_steps(0.15, 0.5, 0.05)),
         "relative to the top one", "m M"),
    Knob("top_k", "top-k", _LADDER, "this many of the top", "k K"),
    Knob("repetition", "repetition", _steps(1.0, 2.0, 0.05), "against seen tokens", "r R"),
)  # fmt: skip
OTHERS = (
    Knob("repetition_window", "its window", (0, 16, 32, 64, 128, 256, 512), "tokens back; 0: all"),
    Knob("presence", "presence", _steps(-2.0, 2.0, 0.1), "taken off if seen"),
    Knob("frequency", "frequency", _steps(-2.0, 2.0, 0.1), "taken off each time"),
    Knob("dynamic_range", "dynamic temperature", _SHARE, "follows the entropy"),
    Knob("dynamic_exponent", "its exponent", _steps(0.2, 3.0, 0.2), "how it follows"),
    Knob("typical", "typical", _NEAR_ONE, "the usual surprise"),
    Knob("top_n_sigma", "top-n-sigma", _steps(0.0, 4.0, 0.25), "logits near the top"),
    Knob("xtc_chance", "xtc", _SHARE, "how often top ones go"),
    Knob("xtc_threshold", "its threshold", _steps(0.0, 0.5, 0.05), "a top one is this likely"),
    Knob("epsilon", "epsilon", _TINY, "a floor of probability"),
    Knob("eta", "eta", _TINY, "a floor, lower if unsure"),
    Knob("dry_multiplier", "dry", _steps(0.0, 2.0, 0.1), "against repeated text"),
    Knob("dry_base", "its base", _steps(1.0, 3.0, 0.25), "growth with its length"),
    Knob("dry_allowed", "its free length", (1, 2, 3, 4, 6, 8, 12), "repeats up to this are free"),
    Knob("mirostat_tau", "mirostat", _steps(0.0, 10.0, 0.5), "bits of surprise; 0: off"),
    Knob("mirostat_eta", "its rate", _steps(0.05, 1.0, 0.05), "how fast it corrects"),
    Knob("no_repeat_ngram", "no-repeat n-gram", (0, 2, 3, 4, 5, 6), "no run of n twice"),
)  # fmt: skip
# What a stage's switch is; the other fields only shape a stage that is on.
SWITCHES = (
    "presence", "frequency", "dynamic_range", "typical", "top_n_sigma", "xtc_chance", "epsilon", "eta",
    "dry_multiplier", "mirostat_tau", "no_repeat_ngram",
)  # fmt: skip
BY_FIELD = {knob.field: knob for knob in (*MAIN, *OTHERS)}


def value_of(settings: SamplingSettings, knob: Knob) -> float:
    return float(getattr(settings, knob.field))


def set_value(settings: SamplingSettings, knob: Knob, value: float) -> SamplingSettings:
    """Raises ValueError where the value is out of the field's range."""
    if knob.whole and value != int(value):
        raise ValueError(f"{knob.label} takes a whole number")
    return settings.replace(**{knob.field: int(value) if knob.whole else float(value)})


def turn(settings: SamplingSettings, knob: Knob, by: int) -> SamplingSettings:
    """``by`` stops above (``by`` > 0) or below the value; a value between two stops goes to one of them.

    A value past the last stop, which can be typed, stays where it is when it is turned further out.
    """
    value, stops = value_of(settings, knob), knob.stops
    if by > 0:
        index = bisect_right(stops, value) + by - 1
        return (
            settings if value >= stops[-1] else set_value(settings, knob, stops[min(index, len(stops) - 1)])
        )
    index = bisect_left(stops, value) + by
    return settings if value <= stops[0] else set_value(settings, knob, stops[max(index, 0)])


def format_value(knob: Knob, value: float) -> str:
    """``off`` where the value is neutral and the knob is a stage's switch."""
    if value == knob.neutral and (knob.field in SWITCHES or knob in MAIN[1:]):
        return "off"
    if knob.whole:
        return f"{int(value):,}"
    return f"{value:.2f}" if value == round(value, 2) else f"{value:.4g}"


def slider(knob: Knob, value: float, cells: int) -> list[Span]:
    """A track with the knob on it, and a tick at the neutral value: ``━━━●──╵──``."""
    here, home = _place(knob, value, cells), _place(knob, knob.neutral, cells)
    on = value != knob.neutral
    spans = []
    for cell in range(cells):
        if cell == here:
            spans.append(("●", "live" if on else "faint"))
        elif cell == home:
            spans.append(("┼", "faint"))
        elif on and cell < here:
            spans.append(("━", "live"))
        else:
            spans.append(("─", "faint"))
    return spans


def _place(knob: Knob, value: float, cells: int) -> int:
    stops = knob.stops
    above = min(max(bisect_left(stops, value), 0), len(stops) - 1)
    return round(above / (len(stops) - 1) * (cells - 1))
