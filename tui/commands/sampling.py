"""The sampling options, the same on every command that samples.

``@sampling_options`` adds them and hands the command one :class:`Sampling` record as ``sampling``.
"""

from __future__ import annotations

import functools
import math
import secrets
from collections.abc import Callable
from typing import Any, NamedTuple

import click

from tfm.core.sampling.settings import NEUTRAL, PRESETS, SamplingSettings
from tfm.tui.commands.output import note
from tfm.tui.commands.suggest import suggest
from tfm.tui.presets import PresetFolder


class Sampling(NamedTuple):
    """What the options say, whether any was given, and whether the seed was left to us."""

    settings: SamplingSettings
    seed: int
    given: bool
    seed_drawn: bool = False
    chosen: bool = False  # a preset or a knob was given, and not a seed alone

    def or_preset(self, name: str) -> Sampling:
        """With this preset, where nothing but perhaps a seed was given."""
        return self if self.chosen else self._replace(settings=PRESETS[name])

    def told(self) -> dict[str, Any]:
        """The settings that are not neutral, as a record of the output holds them."""
        names = [*self.settings.active(), *(["order"] if self.settings.order != NEUTRAL.order else [])]
        return {name: getattr(self.settings, name) for name in names}

    def tell_seed(self) -> None:
        """A drawn seed is told, so that the same output can be had again."""
        if self.seed_drawn and self.settings.temperature > 0:
            note(f"seed {self.seed}")


Callback = Callable[[click.Context, click.Parameter, Any], Any]


def _numbers(**fields: type) -> Callback:
    """Reads ``A,B,...``, as many numbers as there are fields, into a dict of settings."""

    def read(_ctx: click.Context, _param: click.Parameter, value: str | None) -> dict[str, float]:
        if value is None:
            return {}
        try:
            parts = zip(fields.items(), value.split(","), strict=True)
            return {field: kind(part) for (field, kind), part in parts}
        except ValueError:
            kinds = ", ".join("a whole number" if kind is int else "a number" for kind in fields.values())
            raise click.BadParameter(f"{value!r} is not {kinds}, with commas and no spaces between") from None

    return read


def _biases(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[int, float]:
    """Reads ``ID=B`` texts: what is added to a token's logit, or ``-inf`` to ban the token."""
    found: dict[int, float] = {}
    for text in values:
        left, _, right = text.partition("=")
        try:
            token, bias = int(left), float(right)
        except ValueError:
            raise click.BadParameter(f"{text!r} is not ID=B, a token's id and a number") from None
        if token < 0 or math.isnan(bias) or bias == math.inf:
            raise click.BadParameter(f"{text!r} needs an id from 0 up, and a finite number or -inf")
        found[token] = bias
    return found


def _preset(_ctx: click.Context, _param: click.Parameter, name: str | None) -> SamplingSettings | None:
    if name is None or name in PRESETS:
        return None if name is None else PRESETS[name]
    found = PresetFolder().read()
    if name in found.problems:
        raise click.BadParameter(found.problems[name])
    if name not in found.all:
        raise click.BadParameter(f"{name!r} is none of {', '.join(found.all)}{suggest(name, found.all)}")
    return found.all[name]


def _complete_preset(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in PresetFolder().read().all if name.startswith(incomplete)]


# One option a line: flag, type, help. A plain option's name is its field of SamplingSettings.
_PLAIN: tuple[tuple[str, type, str], ...] = (
    ("--temperature", float, "Sharper below 1, flatter above, 0 for the most probable token."),
    ("--top-k", int, "Keep the K most probable tokens; 0: all."),
    ("--top-p", float, "Keep the most probable tokens until their mass is P; 1: all."),
    ("--min-p", float, "Keep tokens with at least M times the largest probability; 0: all."),
    ("--typical", float, "Keep the mass closest to the typical surprise; 1: all."),
    ("--top-n-sigma", float, "Keep logits within N deviations of the largest; 0: all."),
    ("--epsilon", float, "Keep tokens with at least this probability; 0: all."),
    ("--eta", float, "The same, lowered where the model is unsure; 0: all."),
    ("--repetition", float, "Divide the logits of tokens seen before; 1: off."),
    ("--presence", float, "Subtract from the logits of tokens seen before."),
    ("--frequency", float, "Subtract for each time a token was seen."),
    ("--no-repeat-ngram", int, "Never write N tokens a second time; 0: off."),
)
# Several fields in one option: flag, metavar, how to read it, help.
_PACKED: tuple[tuple[str, str, Callback, str], ...] = (
    ("--dynamic-temperature", "R,E", _numbers(dynamic_range=float, dynamic_exponent=float),
     "Temperature moves by R with the entropy, curved by E."),
    ("--xtc", "C,T", _numbers(xtc_chance=float, xtc_threshold=float),
     "With chance C drop all tokens above T but the least likely of them."),
    ("--dry", "M,B,A", _numbers(dry_multiplier=float, dry_base=float, dry_allowed=int),
     "Penalise repeating a run longer than A by M*B^excess."),
    ("--mirostat", "T,E", _numbers(mirostat_tau=float, mirostat_eta=float),
     "Hold the surprise at T bits, learning at rate E; replaces truncation."),
)  # fmt: skip


def sampling_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command receives ``sampling: Sampling`` in their place.

    The command raises ValueError with one sentence for a value out of range.
    """
    plain = [flag[2:].replace("-", "_") for flag, _, _ in _PLAIN]
    packed = [flag[2:].replace("-", "_") for flag, _, _, _ in _PACKED]

    @functools.wraps(function)
    def command(**values: Any) -> Any:
        preset, seed = values.pop("preset"), values.pop("seed")
        order, biases = values.pop("order"), values.pop("logit_bias")
        changes: dict[str, Any] = {name: value for name in plain if (value := values.pop(name)) is not None}
        for name in packed:
            changes |= values.pop(name)
        if order is not None:
            changes["order"] = tuple(stage.strip().replace("-", "_") for stage in order.split(","))
        if biases:
            changes["logit_bias"] = {token: bias for token, bias in biases.items() if bias != -math.inf}
            changes["banned"] = tuple(token for token, bias in biases.items() if bias == -math.inf)
        knobs = bool(changes) or preset is not None
        settings = (preset or NEUTRAL).replace(**changes)
        chosen = secrets.randbelow(2**31) if seed is None else seed
        return function(
            sampling=Sampling(settings, chosen, knobs or seed is not None, seed is None, knobs), **values
        )

    options = [
        click.option("--preset", metavar="NAME", callback=_preset, shell_complete=_complete_preset,
                     help=f"What the other options start from: {', '.join(PRESETS)}, or one of your own."),
        click.option("--seed", type=click.IntRange(0, 2**63 - 1),
                     help="Same seed, same output; drawn, and told, if not given."),
        *(click.option(flag, type=kind, help=text) for flag, kind, text in _PLAIN),
        *(click.option(flag, metavar=metavar, callback=read, help=text)
          for flag, metavar, read, text in _PACKED),
        click.option("--logit-bias", metavar="ID=B", multiple=True, callback=_biases,
                     help="Add B to a token's logit; -inf bans it. Repeatable."),
        click.option("--order", metavar="A,B,C", help="The order of the stages, by name."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command
