"""The sampling chain as a person sees it: its stages and their rules, their order, what changed.

Pure functions over :class:`SamplingSettings`; what they return is for screens, exports and lists.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from tfm.core.sampling.settings import (
    LLAMA_CPP_ORDER,
    NEUTRAL,
    ORDERS,
    TRUNCATING,
    SamplingSettings,
    plan,
)
from tfm.tui.widgets import knobs

State = Literal["on", "neutral", "left out", "replaced"]


class Stage(NamedTuple):
    """One stage of the chain, as ``SamplingSettings.order`` names it."""

    name: str
    label: str
    rule: str  # one line; z are the logits as they arrive, p = softmax(z), H its entropy
    fields: tuple[str, ...]


STAGES = (
    Stage("bias", "bias", "z + b for the tokens you name; a banned one is never drawn",
          ("logit_bias", "banned")),
    Stage("no_repeat_ngram", "no-repeat n-gram", "bans what completes a run of n tokens seen before",
          ("no_repeat_ngram",)),
    Stage("repetition", "repetition", "seen tokens: z/r where z > 0, else z·r",
          ("repetition", "repetition_window")),
    Stage("presence_frequency", "presence, frequency", "z - a if the token was seen, - f for each time",
          ("presence", "frequency")),
    Stage("dry", "dry", "what would extend a repeated run of length L ≥ A: z - m·b^(L-A)",
          ("dry_multiplier", "dry_base", "dry_allowed", "dry_breakers")),
    Stage("top_n_sigma", "top-n-sigma", "keeps z ≥ z_max - n·σ", ("top_n_sigma",)),
    Stage("top_k", "top-k", "keeps the k largest", ("top_k",)),
    Stage("typical", "typical", "those nearest to the expected surprise H, up to the mass M",
          ("typical",)),
    Stage("top_p", "top-p", "keeps the smallest set of the likeliest that holds the mass P", ("top_p",)),
    Stage("min_p", "min-p", "keeps p ≥ m·p_max", ("min_p",)),
    Stage("epsilon", "epsilon", "keeps p ≥ e", ("epsilon",)),
    Stage("eta", "eta", "keeps p ≥ min(e, √e·exp(-H))", ("eta",)),
    Stage("xtc", "xtc", "with chance c, of all tokens with p ≥ t only the least likely stays",
          ("xtc_chance", "xtc_threshold")),
    Stage("dynamic_temperature", "dynamic temperature", "T = lo + (hi - lo)·(H/ln n)^e, lo and hi = T ∓ r",
          ("dynamic_range", "dynamic_exponent")),
    Stage("temperature", "temperature", "z/T; T = 0 keeps the likeliest alone", ("temperature",)),
    Stage("mirostat", "mirostat", "drops a surprise above μ, which steers to τ bits a token",
          ("mirostat_tau", "mirostat_eta")),
)  # fmt: skip
BY_NAME = {stage.name: stage for stage in STAGES}
STAGE_OF = {field: stage for stage in STAGES for field in stage.fields}
LISTS = {  # fields that hold more than a number: label, what they are
    "logit_bias": ("logit bias", "added to logits"),
    "banned": ("banned tokens", "never drawn"),
    "dry_breakers": ("its breakers", "repeats end at these"),
}
FIELDS = tuple(field for stage in STAGES for field in stage.fields)


def label(field: str) -> str:
    """A setting by name, whole: ``xtc threshold`` and not ``its threshold``."""
    if field == "order":
        return "order"
    name = LISTS[field][0] if field in LISTS else knobs.BY_FIELD[field].label
    return f"{STAGE_OF[field].label} {name[4:]}" if name.startswith("its ") else name


def value_text(settings: SamplingSettings, field: str) -> str:
    """A setting's value on a line."""
    if field == "logit_bias":
        return _counted(len(settings.logit_bias), "none")
    if field == "banned":
        return _counted(len(settings.banned), "none")
    if field == "dry_breakers":
        return write_strings(settings.dry_breakers) or "none"
    if field == "order":
        return order_name(settings.order)
    knob = knobs.BY_FIELD[field]
    return knobs.format_value(knob, knobs.value_of(settings, knob))


def _counted(n: int, none: str) -> str:
    return f"{n} token{'s' * (n != 1)}" if n else none


# --------------------------------------------------------------------------- what differs
def differing(settings: SamplingSettings, base: SamplingSettings = NEUTRAL) -> tuple[str, ...]:
    """The fields that differ, in the order of the chain, ``order`` last."""
    return tuple(f for f in (*FIELDS, "order") if getattr(settings, f) != getattr(base, f))


def stage_text(settings: SamplingSettings, stage: Stage) -> str:
    """All that a stage is set to, on a line: ``0.50, threshold 0.10``; ``off`` where it does nothing."""
    if is_neutral(settings, stage.name):
        return "off"
    first, *rest = stage.fields
    told = [value_text(settings, first)]
    for field in rest:
        name = label(field)
        told.append(f"{name.removeprefix(stage.label).strip()} {value_text(settings, field)}")
    return ", ".join(told)


def changes(before: SamplingSettings, after: SamplingSettings) -> list[str]:
    """What changed, a phrase a setting: ``temperature 0.70 → 0.90``."""
    return [_change(field, before, after) for field in differing(after, before)]


def _change(field: str, before: SamplingSettings, after: SamplingSettings) -> str:
    if field == "logit_bias":
        tokens = sorted(before.logit_bias.keys() | after.logit_bias.keys())
        told = [
            f"#{token} {before.logit_bias.get(token, 0.0):+g} → {after.logit_bias.get(token, 0.0):+g}"
            for token in tokens
            if before.logit_bias.get(token) != after.logit_bias.get(token)
        ]
        return f"logit bias {', '.join(told)}"
    if field == "banned":
        gone, new = set(before.banned) - set(after.banned), set(after.banned) - set(before.banned)
        told = [f"+#{token}" for token in sorted(new)] + [f"-#{token}" for token in sorted(gone)]
        return f"banned tokens {' '.join(told)}"
    if field == "order" and order_name(before.order) == order_name(after.order):
        return "order changed"
    return f"{label(field)} {value_text(before, field)} → {value_text(after, field)}"


def summary(settings: SamplingSettings) -> str:
    """All that is not neutral, on one line."""
    told = [f"{label(field)} {value_text(settings, field)}" for field in differing(settings)]
    return ", ".join(told) or "nothing: a draw from the model as it is"


# --------------------------------------------------------------------------- the stages' states
def state(settings: SamplingSettings, stage: str) -> State:
    """What becomes of a stage: it acts, is neutral, is not in the order, or another one takes its place."""
    if stage not in settings.order:
        return "left out"
    acting = plan(settings)
    if stage in acting:
        return "on"
    replaced = ("mirostat" in acting and stage in TRUNCATING) or (
        "dynamic_temperature" in acting and stage == "temperature"
    )
    return "replaced" if replaced and not is_neutral(settings, stage) else "neutral"


def is_neutral(settings: SamplingSettings, stage: str) -> bool:
    """Would it do nothing, whatever the other stages are set to?"""
    alone = NEUTRAL.replace(
        order=(stage,), **{field: getattr(settings, field) for field in BY_NAME[stage].fields}
    )
    return not plan(alone)


def replaced_by(stage: str) -> str:
    return "mirostat" if stage in TRUNCATING else "dynamic temperature"


# --------------------------------------------------------------------------- order
def order_name(order: Sequence[str]) -> str:
    """The order that people know by this name, or "own"."""
    return next((name for name, known in ORDERS.items() if known == tuple(order)), "own")


def next_order(settings: SamplingSettings, by: int = 1) -> SamplingSettings:
    """The named order after this one; from an own one, the first."""
    names = list(ORDERS)
    now = order_name(settings.order)
    index = (names.index(now) + by) % len(names) if now in names else 0
    return settings.replace(order=ORDERS[names[index]])


def move(settings: SamplingSettings, stage: str, by: int) -> SamplingSettings:
    """The stage ``by`` places later in the order; at an end, or where it is left out, nothing changes."""
    if stage not in settings.order:
        return settings
    order = [name for name in settings.order if name != stage]
    place = settings.order.index(stage) + by
    order.insert(min(max(place, 0), len(order)), stage)
    return settings.replace(order=tuple(order))


def toggle(settings: SamplingSettings, stage: str) -> SamplingSettings:
    """Leave a stage out of the order, keeping what it is set to, or take it in again.

    It comes back behind those that stand before it in the named order which the rest is in; in
    llama.cpp's, where it is in none.
    """
    if stage in settings.order:
        return settings.replace(order=tuple(name for name in settings.order if name != stage))
    fits = (
        known for known in ORDERS.values() if [n for n in known if n in settings.order] == [*settings.order]
    )
    known = next(fits, LLAMA_CPP_ORDER)
    before = known[: known.index(stage)]
    place = max((settings.order.index(name) + 1 for name in before if name in settings.order), default=0)
    return settings.replace(order=(*settings.order[:place], stage, *settings.order[place:]))


def reset(settings: SamplingSettings, field: str, base: SamplingSettings = NEUTRAL) -> SamplingSettings:
    """One setting as it is in ``base``."""
    return settings.replace(**{field: getattr(base, field)})


# --------------------------------------------------------------------------- typed in
_HOW = "write a name and a value, such as temperature 0.85 or top-k 40"
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE)
_NAMES = {  # as people and commands write them, spaces and hyphens taken out
    **{"".join(c for c in field if c != "_"): field for field in knobs.BY_FIELD},
    **{"".join(c for c in label(field) if c not in " -"): field for field in knobs.BY_FIELD},
}  # fmt: skip


def typed(settings: SamplingSettings, text: str) -> SamplingSettings:
    """Settings with what was typed: ``temperature 0.85 top-k=40``, or ``order top-k,temperature``.

    Raises:
        ValueError: a name or a value that is none; one sentence.
    """
    parts = [part for part in re.split(r"[\s=,;]+", text.strip().lower()) if part]
    if parts[:1] == ["order"] and len(parts) > 1:
        names = tuple(part.replace("-", "_") for part in parts[1:])
        return settings.replace(order=ORDERS.get(parts[1], names))
    name = ""
    for part in parts:
        if part == "off" or _NUMBER.fullmatch(part):
            settings = set_typed(settings, field_named(name), part)
            name = ""
        else:
            name += part
    if name:
        raise ValueError(f"{label(field_named(name))} needs a value: a number, or off")
    if not parts:
        raise ValueError(_HOW)
    return settings


def field_named(name: str) -> str:
    """The number's field that people call this. Raises ValueError with a sentence."""
    wanted = "".join(c for c in name.lower() if c not in " -_")
    found = _NAMES.get(wanted)
    if found is None:
        near = [field for key, field in _NAMES.items() if wanted and key.startswith(wanted)]
        if len(set(near)) != 1:
            raise ValueError(f"there is no setting {name!r}; {_HOW}" if name else _HOW)
        found = near[0]
    return found


def set_typed(settings: SamplingSettings, field: str, text: str) -> SamplingSettings:
    """One number as it was typed; ``off`` is neutral. Raises ValueError with a sentence."""
    knob = knobs.BY_FIELD[field]
    text = text.strip().lower()
    if text in ("off", "neutral"):
        return reset(settings, field)
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError(f"{text!r} is no number; off makes it neutral")
    return knobs.set_value(settings, knob, float(text))


def read_strings(text: str) -> tuple[str, ...]:
    r"""Strings with spaces between them; ``\n`` is a new line, ``\s`` a space, ``\\`` a backslash."""
    real = {"n": "\n", "t": "\t", "s": " ", "\\": "\\"}
    parts = (re.sub(r"\\([nts\\])", lambda found: real[found[1]], part) for part in text.split())
    return tuple(dict.fromkeys(parts))


def write_strings(strings: Iterable[str]) -> str:
    """What :func:`read_strings` reads."""
    shown = {"\\": r"\\", "\n": r"\n", "\t": r"\t", " ": r"\s"}
    return " ".join("".join(shown.get(c, c) for c in string) for string in strings)
