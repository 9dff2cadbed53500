"""The knobs of the sampling chain: how each one is named, stepped and drawn. Pure functions."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

from tfm.core.sampling.settings import NEUTRAL, PRESETS, SamplingSettings
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
    Knob("temperature", "temperature", _steps(0.0, 2.0, 0.05), "divides logits; 0 is the likeliest", "t T"),
    Knob("top_p", "top-p", _NEAR_ONE, "keeps the smallest set of tokens that holds this probability", "p P"),
    Knob("min_p", "min-p", (*_steps(0.0, 0.1, 0.01), *_steps(0.15, 0.5, 0.05)),
         "keeps tokens at least this likely, relative to the likeliest", "m M"),
    Knob("top_k", "top-k", _LADDER, "keeps this many of the likeliest tokens", "k K"),
    Knob("repetition", "repetition", _steps(1.0, 2.0, 0.05), "makes seen tokens less likely", "r R"),
)  # fmt: skip
OTHERS = (
    Knob("repetition_window", "repetition window", (0, 16, 32, 64, 128, 256, 512), "how far back; 0 is all"),
    Knob("presence", "presence", _steps(-2.0, 2.0, 0.1), "taken off every token that was seen"),
    Knob("frequency", "frequency", _steps(-2.0, 2.0, 0.1), "taken off for each time that a token was seen"),
    Knob("dynamic_range", "dynamic temperature", _SHARE, "temperature follows the entropy this far"),
    Knob("dynamic_exponent", "dynamic exponent", _steps(0.2, 3.0, 0.2), "how it follows the entropy"),
    Knob("typical", "typical", _NEAR_ONE, "keeps tokens of about the expected surprise"),
    Knob("top_n_sigma", "top-n-sigma", _steps(0.0, 4.0, 0.25), "keeps logits within n deviations of the top"),
    Knob("xtc_chance", "xtc chance", _SHARE, "how often the likeliest choices are excluded"),
    Knob("xtc_threshold", "xtc threshold", _steps(0.0, 0.5, 0.05), "choices this likely count as such"),
    Knob("epsilon", "epsilon", _TINY, "drops tokens less likely than this"),
    Knob("eta", "eta", _TINY, "the same, relative to the entropy"),
    Knob("dry_multiplier", "dry", _steps(0.0, 2.0, 0.1), "penalty for extending a repeated passage"),
    Knob("dry_base", "dry base", _steps(1.0, 3.0, 0.25), "how it grows with the length of the passage"),
    Knob("dry_allowed", "dry allowed", (1, 2, 3, 4, 6, 8, 12), "length that may be repeated freely"),
    Knob("mirostat_tau", "mirostat tau", _steps(0.0, 10.0, 0.5), "aims at this surprise in bits; 0 is off"),
    Knob("mirostat_eta", "mirostat eta", _steps(0.05, 1.0, 0.05), "how fast it corrects itself"),
    Knob("no_repeat_ngram", "no-repeat n-gram", (0, 2, 3, 4, 5, 6), "no run of n tokens comes twice"),
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
    """The next stop above (``by`` > 0) or below the value; a value between two stops goes to one of them."""
    value = value_of(settings, knob)
    index = bisect_right(knob.stops, value) if by > 0 else bisect_left(knob.stops, value) - 1
    index = min(max(index, 0), len(knob.stops) - 1)
    return set_value(settings, knob, knob.stops[index])


def format_value(knob: Knob, value: float) -> str:
    """``off`` where the value is neutral and the knob is a stage's switch."""
    if value == knob.neutral and (knob.field in SWITCHES or knob in MAIN[1:]):
        return "off"
    if knob.whole:
        return f"{int(value):,}"
    return f"{value:.2f}" if value >= 0.01 or value <= 0 else f"{value:g}"


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


def preset_name(settings: SamplingSettings) -> str:
    """The preset that these settings are, or "own"."""
    return next((name for name, preset in PRESETS.items() if preset == settings), "own")


def next_preset(settings: SamplingSettings, by: int) -> SamplingSettings:
    """The preset ``by`` places after the one that these settings are."""
    names = list(PRESETS)
    now = preset_name(settings)
    index = (names.index(now) + by) % len(names) if now in names else 0
    return PRESETS[names[index]]
