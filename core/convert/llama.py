"""Llama and what grew from it: Mistral, Qwen2, Qwen3. Rotary, RMSNorm, gated feed-forward, pre-norm.

They differ in which projections have a bias, in the q/k norms of Qwen3 and in who slides a window.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tfm.core.config import ModelConfig, RopeScaling
from tfm.core.convert.table import Both, ConvertError, Family, Key, Only, Raw, Rule, key, module, tensor

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "relu": "relu",
}


# --------------------------------------------------------------------------- rotary positions
def _read_rope(raw: Raw) -> dict[str, Any]:
    """``rope_theta`` and ``rope_scaling``, or both in ``rope_parameters`` (transformers 5)."""
    newer, older = raw.get("rope_parameters") or {}, raw.get("rope_scaling") or {}
    where = "rope_parameters" if newer else "rope_scaling"
    if not isinstance(newer, Mapping) or not isinstance(older, Mapping):
        raise ConvertError(f"{where} must be an object")
    options = {**older, **newer}
    theta = options.get("rope_theta", raw.get("rope_theta")) or 10_000.0
    partial = options.get("partial_rotary_factor", raw.get("partial_rotary_factor")) or 1.0
    if partial != 1.0:
        raise ConvertError(f"partial_rotary_factor = {partial!r} is not supported, only 1.0")
    kind = options.get("rope_type", options.get("type")) or "default"
    if kind not in ("default", "linear", "llama3"):
        raise ConvertError(f"{where}: type {kind!r} is not supported, only default, linear and llama3")
    scaling: dict[str, Any] | None = None
    if kind != "default":
        scaling = {"kind": kind, "factor": options.get("factor")}
    if kind == "llama3":
        context = options.get("original_max_position_embeddings") or raw.get("max_position_embeddings")
        scaling = {
            **(scaling or {}),
            "low_freq_factor": options.get("low_freq_factor"),
            "high_freq_factor": options.get("high_freq_factor"),
            "original_max_positions": context,
        }
    try:
        return {
            "rope_theta": msgspec.convert(theta, float),
            "rope_scaling": msgspec.convert(scaling, RopeScaling | None),
        }
    except msgspec.ValidationError as error:
        raise ConvertError(f"{where}: {error}") from None


def _write_rope(config: ModelConfig) -> dict[str, Any]:
    """The older spelling, which every version reads."""
    written: dict[str, Any] = {"rope_theta": config.rope_theta, "rope_scaling": None}
    scaling = config.rope_scaling
    if scaling is not None:
        # "type" is what versions before 4.43 look for.
        written["rope_scaling"] = {
            "rope_type": scaling.kind, "type": scaling.kind, "factor": scaling.factor,
        }  # fmt: skip
        if scaling.kind == "llama3":
            written["rope_scaling"] |= {
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_max_positions,
            }
    return written


# --------------------------------------------------------------------------- sliding windows
def _read_partial_window(raw: Raw) -> dict[str, Any]:
    """Qwen: a switch, a width, and the layer from which on it slides; ours is for all or none."""
    n_layers, width = raw.get("num_hidden_layers", 0), raw.get("sliding_window")
    if not raw.get("use_sliding_window") or width is None:
        return {"sliding_window": None}
    kinds = raw.get("layer_types")
    if kinds is None:
        first = raw.get("max_window_layers", 28)
        kinds = ["sliding_attention" if i >= first else "full_attention" for i in range(min(n_layers, 1000))]
    if "sliding_attention" not in kinds:
        return {"sliding_window": None}
    if any(kind != "sliding_attention" for kind in kinds):
        raise ConvertError("layers with and without a sliding window in one model are not supported")
    return {"sliding_window": width}


def _write_partial_window(config: ModelConfig) -> dict[str, Any]:
    if config.sliding_window is None:
        return {"use_sliding_window": False, "sliding_window": None,
                "max_window_layers": config.n_decoder_layers}  # fmt: skip
    return {"use_sliding_window": True, "sliding_window": config.sliding_window, "max_window_layers": 0}


def _read_window(raw: Raw) -> dict[str, Any]:
    kinds = raw.get("layer_types")
    if isinstance(kinds, list) and len(set(kinds)) > 1:
        raise ConvertError("layers with and without a sliding window in one model are not supported")
    return {"sliding_window": raw.get("sliding_window", 4096)}


def _write_window(config: ModelConfig) -> dict[str, Any]:
    return {"sliding_window": config.sliding_window}


# --------------------------------------------------------------------------- what they share
def _read_head(raw: Raw) -> dict[str, Any]:
    size = raw.get("head_dim")
    if size is not None and size == raw["hidden_size"] // max(raw["num_attention_heads"], 1):
        size = None
    return {"d_head": size}


def _write_head(config: ModelConfig) -> dict[str, Any]:
    return {"head_dim": config.head_dim}


def _read_qwen3_head(raw: Raw) -> dict[str, Any]:
    return _read_head({**raw, "head_dim": raw.get("head_dim") or 128})


def _kv_heads(default: int | None) -> Key:
    return key("num_key_value_heads", "n_kv_heads", default=default)


KEYS = (
    key("vocab_size", "vocab_size"),
    key("hidden_size", "d_model"),
    key("intermediate_size", "d_ff"),
    key("num_hidden_layers", "n_decoder_layers"),
    key("num_attention_heads", "n_heads"),
    key("max_position_embeddings", "max_positions"),
    key("hidden_act", "activation", default="silu", names=ACTIVATIONS),
    key("rms_norm_eps", "norm_eps", default=1e-6),
    key("tie_word_embeddings", "tie_output", default=False),
    Both(_read_rope, _write_rope),
)
FIXED = {
    "family": "decoder-only",
    "positions": "rotary",
    "norm": "rmsnorm",
    "norm_position": "pre",
    "gated_ff": True,
}
LAYER, OURS = "model.layers.{i}", "decoder_layers.{i}"
RULES: tuple[Rule, ...] = (
    tensor("model.embed_tokens.weight", "embedding.tokens.weight"),
    tensor(f"{LAYER}.input_layernorm.weight", f"{OURS}.self_residual.norm.weight"),
    *module(f"{LAYER}.self_attn.q_proj", f"{OURS}.self_attention.q_proj"),
    *module(f"{LAYER}.self_attn.k_proj", f"{OURS}.self_attention.k_proj"),
    *module(f"{LAYER}.self_attn.v_proj", f"{OURS}.self_attention.v_proj"),
    *module(f"{LAYER}.self_attn.o_proj", f"{OURS}.self_attention.out_proj"),
    tensor(f"{LAYER}.self_attn.q_norm.weight", f"{OURS}.self_attention.q_norm.weight"),
    tensor(f"{LAYER}.self_attn.k_norm.weight", f"{OURS}.self_attention.k_norm.weight"),
    tensor(f"{LAYER}.post_attention_layernorm.weight", f"{OURS}.ff_residual.norm.weight"),
    *module(f"{LAYER}.mlp.gate_proj", f"{OURS}.feed_forward.gate"),
    *module(f"{LAYER}.mlp.up_proj", f"{OURS}.feed_forward.up"),
    *module(f"{LAYER}.mlp.down_proj", f"{OURS}.feed_forward.down"),
    tensor("model.norm.weight", "decoder_norm.weight"),
    tensor("lm_head.weight", "head.projection.weight"),
)
IGNORED = ("*.rotary_emb.inv_freq",)


def _family(model_type: str, name: str, fixed: Mapping[str, Any], *keys: Key | Only | Both) -> Family:
    return Family(
        model_type=model_type,
        architecture=f"{name}ForCausalLM",
        accepted=(f"{name}Model",),
        prefix="model.",
        fixed={**FIXED, **fixed},
        keys=(*KEYS, *keys),
        rules=RULES,
        ignored=IGNORED,
    )


LLAMA = _family(
    "llama", "Llama", {},
    _kv_heads(None),
    Both(_read_head, _write_head),
    key("attention_bias", "qkv_bias", "out_bias", default=False),
    key("mlp_bias", "ff_bias", default=False),
)  # fmt: skip
MISTRAL = _family(
    "mistral", "Mistral", {"qkv_bias": False, "out_bias": False, "ff_bias": False},
    _kv_heads(8),
    Both(_read_head, _write_head),
    Both(_read_window, _write_window),
)  # fmt: skip
QWEN2 = _family(
    "qwen2", "Qwen2", {"qkv_bias": True, "out_bias": False, "ff_bias": False},
    _kv_heads(32),
    Both(_read_partial_window, _write_partial_window),
)  # fmt: skip
QWEN3 = _family(
    "qwen3", "Qwen3", {"ff_bias": False, "qk_norm": True},
    _kv_heads(32),
    Both(_read_qwen3_head, _write_head),
    key("attention_bias", "qkv_bias", "out_bias", default=False),
    Both(_read_partial_window, _write_partial_window),
)  # fmt: skip
