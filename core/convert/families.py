"""Which family a foreign folder belongs to, and which one can hold a checkpoint of ours."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tfm.core.config import ModelConfig
from tfm.core.convert.bert import BERT, BERT_ENCODER
from tfm.core.convert.gpt2 import GPT2
from tfm.core.convert.llama import LLAMA, MISTRAL, QWEN2, QWEN3
from tfm.core.convert.marian import M2M100, MARIAN, MARIAN_SEPARATE
from tfm.core.convert.table import ConvertError, Family, Raw

# In the order in which an export tries them.
FAMILIES: tuple[Family, ...] = (
    GPT2, LLAMA, MISTRAL, QWEN2, QWEN3, BERT, BERT_ENCODER, MARIAN, MARIAN_SEPARATE, M2M100,
)  # fmt: skip


def family_of(raw: Raw, names: Collection[str]) -> Family:
    """The family of a folder with this config.json and tensors of these names.

    Raises:
        ConvertError: for an architecture that has no table.
    """
    model_type = raw.get("model_type")
    found = [family for family in FAMILIES if family.model_type == model_type]
    if not found:
        known = ", ".join(dict.fromkeys(family.model_type for family in FAMILIES))
        raise ConvertError(f"model_type = {model_type!r} is not supported, only {known}")
    if raw.get("quantization_config") is not None:
        raise ConvertError("quantization_config: a quantised folder cannot be imported; take the original")
    architectures = raw.get("architectures")
    if isinstance(architectures, Sequence) and architectures:
        accepted = {name for family in found for name in (family.architecture, *family.accepted)}
        if architectures[0] not in accepted:
            raise ConvertError(
                f"architectures = {architectures[0]!r} is not supported, only {', '.join(sorted(accepted))}"
            )
    if model_type == "bert":
        headed = any(name.startswith("cls.predictions.") for name in names)
        return BERT if headed else BERT_ENCODER
    if model_type == "marian":
        return MARIAN_SEPARATE if raw.get("share_encoder_decoder_embeddings") is False else MARIAN
    return found[0]


def family_for(config: ModelConfig, preferred: str | None = None) -> tuple[Family, ModelConfig]:
    """A family that expresses all of this config, and the config as that family has it.

    Where a family always has biases and we have none, the config that comes back has them; as zeros
    they change nothing.

    Raises:
        ConvertError: naming what the nearest family cannot express.
    """
    ordered = sorted(FAMILIES, key=lambda family: family.model_type != preferred)
    widened = config.replace(
        qkv_bias=True, out_bias=True, ff_bias=True, output_bias=config.family != "decoder-only"
    )
    for candidate in (config, widened):
        for family in ordered:
            if family.mismatch(candidate) is None:
                return family, candidate
    reasons = [
        f"{family.model_type} has no {family.mismatch(widened)}"
        for family in ordered
        if family.fixed["family"] == config.family
        and family.fixed["positions"] == config.positions
        and family.fixed["norm_position"] == config.norm_position
    ]
    reason = (
        reasons[0]
        if reasons
        else (
            f"none of them is {config.family}, {config.norm_position}-norm, with {config.positions} positions"
        )
    )
    raise ConvertError(f"no published family has this architecture: {reason}")
