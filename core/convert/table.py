"""The language in which a family of checkpoints is described once and converted in both directions.

A :class:`Family` says how a foreign ``config.json`` and our ModelConfig correspond, and under which
name and in which layout each of our tensors is stored. Reading and writing walk the same table.

    theirs   a key of config.json, or the name of a tensor in their files
    ours     a field of ModelConfig, or the name of a parameter of our model
    {i}      the number of a layer
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import torch
from torch import Tensor

from tfm.core.config import ModelConfig
from tfm.core.model import build_model

Raw = Mapping[str, Any]
Layout = Literal["same", "transposed", "row"]

MAX_LAYERS = 1000
MAX_SINUSOIDS = 1 << 20  # positions of a table that is computed, not stored

# Fields that say nothing about shapes or arithmetic; they are converted apart from the tables.
TOKEN_FIELDS = (
    "pad_id", "bos_id", "eos_id", "eos_ids", "mask_id", "unk_id", "decoder_start_id", "source_prefix",
    "target_prefix", "banned_ids", "dropout",
)  # fmt: skip


class _Required:
    """The default of a key that must be there."""


REQUIRED = _Required()


class ConvertError(ValueError):
    """A sentence that names the file and the tensor or key that cannot be converted."""


# --------------------------------------------------------------------------- config.json
@dataclass(frozen=True)
class Key:
    """One key of theirs that is one or several fields of ours."""

    theirs: str
    ours: tuple[str, ...]
    default: Any = REQUIRED
    names: Mapping[str, str] | None = None  # their word -> our word; the first of several is written

    def read(self, raw: Raw) -> dict[str, Any]:
        value = raw.get(self.theirs)
        if value is None:
            value = self.default
        if value is REQUIRED:
            raise ConvertError(f"{self.theirs} is missing")
        if self.names is not None:
            value = _choose(self.theirs, value, self.names)
        try:
            value = msgspec.convert(value, _types()[self.ours[0]])
        except msgspec.ValidationError as error:
            raise ConvertError(f"{self.theirs}: {error}") from None
        return dict.fromkeys(self.ours, value)

    def write(self, config: ModelConfig) -> dict[str, Any]:
        value = getattr(config, self.ours[0])
        if self.names is not None:
            value = next((theirs for theirs, ours in self.names.items() if ours == value), value)
        return {self.theirs: value}


@dataclass(frozen=True)
class Only:
    """A key of theirs for which we have but one behaviour; others are refused."""

    theirs: str
    value: Any
    written: bool = True  # some keys are history: refused where they differ, never written

    def read(self, raw: Raw) -> dict[str, Any]:
        value = raw.get(self.theirs)
        if value is not None and value != self.value:
            raise ConvertError(f"{self.theirs} = {value!r} is not supported, only {self.value!r}")
        return {}

    def write(self, config: ModelConfig) -> dict[str, Any]:
        return {self.theirs: self.value} if self.written else {}


@dataclass(frozen=True)
class Both:
    """Keys that correspond in a way of their own: one function for each direction."""

    read: Callable[[Raw], dict[str, Any]]
    write: Callable[[ModelConfig], dict[str, Any]]


def key(theirs: str, *ours: str, default: Any = REQUIRED, names: Mapping[str, str] | None = None) -> Key:
    return Key(theirs, ours, default, names)


def _choose(what: str, value: Any, names: Mapping[str, str]) -> str:
    if not isinstance(value, str) or value not in names:
        raise ConvertError(f"{what} = {value!r} is not supported, only {', '.join(names)}")
    return names[value]


def _types() -> dict[str, Any]:
    return typing.get_type_hints(ModelConfig)


# --------------------------------------------------------------------------- tensors
@dataclass(frozen=True)
class Rule:
    """One stored tensor that is one or several parameters of ours, stacked along their first axis.

    ``transposed``: stored as (in, out). ``row``: a vector stored as a matrix of one row.
    """

    theirs: str
    ours: tuple[str, ...]
    layout: Layout = "same"
    also: tuple[str, ...] = ()  # other names under which it is found
    zeros: bool = False  # may be missing, and is all zeros then
    twice: bool = False  # written under the first of the other names as well


def tensor(
    theirs: str,
    *ours: str,
    layout: Layout = "same",
    also: tuple[str, ...] = (),
    zeros: bool = False,
    twice: bool = False,
) -> Rule:
    return Rule(theirs, ours, layout, also, zeros, twice)


def module(theirs: str, *ours: str, layout: Layout = "same") -> tuple[Rule, Rule]:
    """The weight and the bias of a linear layer or a norm; the layout is the weight's."""
    weights = tuple(f"{name}.weight" for name in ours)
    biases = tuple(f"{name}.bias" for name in ours)
    return Rule(f"{theirs}.weight", weights, layout), Rule(f"{theirs}.bias", biases)


def stored_layout(part: Tensor, layout: Layout) -> Tensor:
    """Ours to theirs, and as well theirs to ours: both layouts undo themselves but for the row."""
    if layout == "transposed":
        return part.T
    if layout == "row":
        return part[None]
    return part


@dataclass(frozen=True)
class Entry:
    """One stored tensor of a certain checkpoint: its names, its shape, and what it is made of."""

    names: tuple[str, ...]
    ours: tuple[str, ...]
    layout: Layout
    shape: tuple[int, ...]  # as stored
    rows: tuple[int, ...]  # of each parameter of ours, along its first axis
    zeros: bool
    twice: bool

    @property
    def written(self) -> tuple[str, ...]:
        """Names under which an export stores it."""
        return self.names[:2] if self.twice else self.names[:1]

    def split(self, stored: Tensor) -> dict[str, Tensor]:
        """Their tensor as our parameters, each contiguous and with memory of its own."""
        plain = stored[0] if self.layout == "row" else stored_layout(stored, self.layout)
        parts = torch.split(plain, list(self.rows)) if len(self.ours) > 1 else (plain,)
        return {name: part.contiguous() for name, part in zip(self.ours, parts, strict=True)}

    def join(self, parts: Callable[[str], Tensor]) -> Tensor:
        """Our parameters as their tensor."""
        held = [parts(name) for name in self.ours]
        joined = held[0] if len(held) == 1 else torch.cat(held)
        return stored_layout(joined, self.layout).contiguous()


# --------------------------------------------------------------------------- a family
@dataclass(frozen=True)
class Family:
    """Everything there is to know about one ``model_type``."""

    model_type: str
    architecture: str  # the class that opens an exported folder
    keys: tuple[Key | Only | Both, ...]
    fixed: Mapping[str, Any]  # fields of ours that are always so
    rules: tuple[Rule, ...]
    accepted: tuple[str, ...] = ()  # further architectures that hold at least the same tensors
    prefix: str = ""  # of their names; a folder may leave it out
    renamed: Mapping[str, str] = field(default_factory=dict)  # endings that old folders use
    ignored: tuple[str, ...] = ()  # patterns (fnmatch) of stored tensors that carry nothing we use

    def read_config(self, raw: Raw) -> dict[str, Any]:
        """Fields of ModelConfig, the token ids apart.

        Raises:
            ConvertError: naming the key.
        """
        fields = dict(self.fixed)
        for entry in self.keys:
            fields |= entry.read(raw)
        for name in ("n_encoder_layers", "n_decoder_layers"):
            if fields.get(name, 0) > MAX_LAYERS:
                raise ConvertError(f"{fields[name]:,} layers are more than {MAX_LAYERS:,}")
        if fields["positions"] == "sinusoidal" and fields["max_positions"] > MAX_SINUSOIDS:
            raise ConvertError(f"{fields['max_positions']:,} positions are more than {MAX_SINUSOIDS:,}")
        return fields

    def write_config(self, config: ModelConfig) -> dict[str, Any]:
        raw: dict[str, Any] = {"model_type": self.model_type, "architectures": [self.architecture]}
        for entry in self.keys:
            raw |= entry.write(config)
        return raw

    def mismatch(self, config: ModelConfig) -> str | None:
        """The first field that this family cannot express, or None if it expresses all of them."""
        try:
            there_and_back = ModelConfig.create(**self.read_config(self.write_config(config)))
        except ValueError as error:
            return str(error)
        back, wanted = _canonical(there_and_back), _canonical(config)
        for name, value in wanted.items():
            if back[name] != value:
                return f"{name} = {value!r}"
        return None

    def entries(self, config: ModelConfig) -> list[Entry]:
        """Every stored tensor that a checkpoint of this shape has."""
        shapes = parameter_shapes(config)
        found: list[Entry] = []
        left = dict(shapes)
        for rule in self.rules:
            for layer in range(_n_layers(rule, config)):
                ours = tuple(name.format(i=layer) for name in rule.ours)
                if not any(name in shapes for name in ours):
                    continue  # a bias that is switched off, a table that is tied
                parts = [shapes[name] for name in ours]
                for name in ours:
                    del left[name]
                rows = tuple(part[0] for part in parts)
                shape = (sum(rows), *parts[0][1:])
                names = tuple(name.format(i=layer) for name in (rule.theirs, *rule.also))
                stored = _stored_shape(shape, rule.layout)
                found.append(Entry(names, ours, rule.layout, stored, rows, rule.zeros, rule.twice))
        assert not left, f"no rule of {self.model_type} for {sorted(left)}"
        return found


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter of a model, without making one."""
    with torch.device("meta"):
        model = build_model(config)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _stored_shape(shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    if layout == "transposed":
        return shape[::-1]
    return (1, *shape) if layout == "row" else shape


def _n_layers(rule: Rule, config: ModelConfig) -> int:
    if "{i}" not in rule.theirs:
        return 1
    return config.n_encoder_layers if rule.ours[0].startswith("encoder_") else config.n_decoder_layers


def _canonical(config: ModelConfig) -> dict[str, Any]:
    """The fields that make a difference, each in one spelling."""
    fields: dict[str, Any] = {
        name: getattr(config, name) for name in config.__struct_fields__ if name not in TOKEN_FIELDS
    }
    fields["d_head"], fields["n_kv_heads"] = config.head_dim, config.kv_heads
    if config.norm_position == "post":
        fields["final_norm"] = True  # there is none
    if config.positions != "sinusoidal":
        del fields["sinusoidal_layout"]
    if config.positions != "rotary":
        del fields["rope_theta"], fields["rope_scaling"]
    if config.family != "encoder-decoder":
        del fields["share_embeddings"]
    if config.sliding_window is not None and config.sliding_window >= config.max_positions:
        fields["sliding_window"] = None
    return fields
