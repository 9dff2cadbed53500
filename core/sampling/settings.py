"""SamplingSettings: what every knob of the sampling chain is set to. Plain data, no torch.

The rules of each stage stand in :mod:`tfm.core.sampling.stages`; this file knows only their
parameters, their neutral values, their allowed ranges and the named presets.
"""

from __future__ import annotations

from typing import Any

import msgspec

LLAMA_CPP_ORDER = (
    "bias", "no_repeat_ngram", "repetition", "presence_frequency", "dry", "top_n_sigma",
    "top_k", "typical", "top_p", "min_p", "epsilon", "eta", "xtc", "dynamic_temperature",
    "temperature", "mirostat",
)  # fmt: skip
TRANSFORMERS_ORDER = (
    "bias", "no_repeat_ngram", "repetition", "presence_frequency", "dry", "dynamic_temperature",
    "temperature", "top_k", "top_p", "min_p", "typical", "epsilon", "eta", "top_n_sigma", "xtc",
    "mirostat",
)  # fmt: skip
ORDERS = {"llama.cpp": LLAMA_CPP_ORDER, "transformers": TRANSFORMERS_ORDER}
STAGES = frozenset(LLAMA_CPP_ORDER)
TRUNCATING = frozenset(("top_n_sigma", "top_k", "typical", "top_p", "min_p", "epsilon", "eta", "xtc"))
"""The stages that mirostat replaces."""


class SamplingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every stage's parameters; the defaults are neutral (they remove and change nothing)."""

    temperature: float = 1.0  # 0 is argmax
    dynamic_range: float = 0.0  # T in [temperature - range, temperature + range]
    dynamic_exponent: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical: float = 1.0
    top_n_sigma: float = 0.0
    xtc_chance: float = 0.0
    xtc_threshold: float = 0.1
    epsilon: float = 0.0
    eta: float = 0.0
    repetition: float = 1.0
    repetition_window: int = 0  # last n tokens that count as seen; 0: all
    presence: float = 0.0
    frequency: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed: int = 2
    dry_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    mirostat_tau: float = 0.0  # 0: off
    mirostat_eta: float = 0.1
    logit_bias: dict[int, float] = {}
    banned: tuple[int, ...] = ()
    no_repeat_ngram: int = 0
    order: tuple[str, ...] = LLAMA_CPP_ORDER

    def replace(self, **changes: Any) -> SamplingSettings:
        """A checked copy. Raises ValueError naming the field."""
        unknown = set(changes) - set(self.__struct_fields__)
        if unknown:
            raise ValueError(f"unknown sampling setting {sorted(unknown)[0]!r}")
        settings = msgspec.structs.replace(self, **changes)
        settings.check()
        return settings

    def check(self) -> None:
        """Raise ValueError with one sentence for the first value out of range."""
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:  # also refuses NaN
                raise ValueError(f"{name} must lie in [{low:g}, {high:g}], not {value}")
        for token, bias in self.logit_bias.items():
            if not -1e6 <= bias <= 1e6:
                raise ValueError(f"logit_bias of token {token} must lie in [-1e6, 1e6], not {bias}")
        unknown = [stage for stage in self.order if stage not in STAGES]
        if unknown:
            raise ValueError(
                f"order names no stage {unknown[0]!r}; the stages are {', '.join(sorted(STAGES))}"
            )
        if len(set(self.order)) != len(self.order):
            raise ValueError("order names a stage twice")

    def active(self) -> tuple[str, ...]:
        """Names of the fields that are not neutral, in declaration order."""
        return tuple(
            name
            for name in self.__struct_fields__
            if name != "order"
            and name in RANGES | {"logit_bias": 0, "banned": 0}
            and getattr(self, name) != getattr(NEUTRAL, name)
        )


RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 10.0),
    "dynamic_range": (0.0, 10.0),
    "dynamic_exponent": (0.0, 10.0),
    "top_k": (0, 1_000_000),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "typical": (0.0, 1.0),
    "top_n_sigma": (0.0, 100.0),
    "xtc_chance": (0.0, 1.0),
    "xtc_threshold": (0.0, 1.0),
    "epsilon": (0.0, 1.0),
    "eta": (0.0, 1.0),
    "repetition": (0.1, 10.0),
    "repetition_window": (0, 1_000_000),
    "presence": (-10.0, 10.0),
    "frequency": (-10.0, 10.0),
    "dry_multiplier": (0.0, 100.0),
    "dry_base": (1.0, 10.0),
    "dry_allowed": (1, 1_000),
    "mirostat_tau": (0.0, 100.0),
    "mirostat_eta": (0.0, 10.0),
    "no_repeat_ngram": (0, 1_000),
}

NEUTRAL = SamplingSettings()

PRESETS: dict[str, SamplingSettings] = {
    "greedy": SamplingSettings(temperature=0.0),
    "precise": SamplingSettings(temperature=0.3, top_p=0.9),
    "balanced": SamplingSettings(temperature=0.7, top_p=0.95),
    "creative": SamplingSettings(temperature=1.1, min_p=0.05),
    "chat": SamplingSettings(temperature=0.4, top_p=0.9, repetition=1.1, repetition_window=128),
    "llama.cpp": SamplingSettings(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05),
    "transformers": SamplingSettings(top_k=50, order=TRANSFORMERS_ORDER),
    "neutral": NEUTRAL,
}


def plan(settings: SamplingSettings) -> tuple[str, ...]:
    """The stages that act, in the settings' order: neutral ones are left out.

    Dynamic temperature replaces temperature, mirostat replaces the truncating stages.
    """
    s = settings
    mirostat = s.mirostat_tau > 0 and "mirostat" in s.order
    dynamic = s.dynamic_range > 0 and "dynamic_temperature" in s.order
    acts = {
        "bias": bool(s.logit_bias) or bool(s.banned),
        "no_repeat_ngram": s.no_repeat_ngram > 0,
        "repetition": s.repetition != 1.0,
        "presence_frequency": s.presence != 0.0 or s.frequency != 0.0,
        "dry": s.dry_multiplier > 0.0,
        "top_n_sigma": s.top_n_sigma > 0.0,
        "top_k": s.top_k > 0,
        "typical": s.typical < 1.0,
        "top_p": s.top_p < 1.0,
        "min_p": s.min_p > 0.0,
        "epsilon": s.epsilon > 0.0,
        "eta": s.eta > 0.0,
        "xtc": s.xtc_chance > 0.0,
        "dynamic_temperature": dynamic,
        "temperature": s.temperature != 1.0 and not dynamic,
        "mirostat": mirostat,
    }
    return tuple(stage for stage in s.order if acts[stage] and not (mirostat and stage in TRUNCATING))
