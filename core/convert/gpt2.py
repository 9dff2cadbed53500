"""GPT-2 (Radford et al. 2019): learned positions, pre-norm, fused q/k/v, matrices stored as (in, out)."""

from __future__ import annotations

from typing import Any

from tfm.core.config import ModelConfig
from tfm.core.convert.table import Both, Family, Only, Raw, key, module, tensor

ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


def _read_width(raw: Raw) -> dict[str, Any]:
    inner = raw.get("n_inner")
    return {"d_ff": 4 * raw["n_embd"] if inner is None else inner}


def _write_width(config: ModelConfig) -> dict[str, Any]:
    return {"n_inner": config.d_ff}


LAYER, OURS = "transformer.h.{i}", "decoder_layers.{i}"

GPT2 = Family(
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    accepted=("GPT2Model", "GPT2DoubleHeadsModel"),
    prefix="transformer.",
    fixed={"family": "decoder-only", "positions": "learned", "norm_position": "pre", "norm": "layernorm"},
    keys=(
        key("vocab_size", "vocab_size"),
        key("n_embd", "d_model"),
        key("n_head", "n_heads"),
        key("n_layer", "n_decoder_layers"),
        key("n_positions", "max_positions"),
        Both(_read_width, _write_width),
        key("activation_function", "activation", default="gelu_new", names=ACTIVATIONS),
        key("layer_norm_epsilon", "norm_eps", default=1e-5),
        key("resid_pdrop", "dropout", default=0.0),
        key("tie_word_embeddings", "tie_output", default=True),
        Only("scale_attn_weights", True),
        Only("scale_attn_by_inverse_layer_idx", False),
        Only("add_cross_attention", False, written=False),
    ),
    rules=(
        tensor("transformer.wte.weight", "embedding.tokens.weight"),
        tensor("transformer.wpe.weight", "embedding.positions.table"),
        *module(f"{LAYER}.ln_1", f"{OURS}.self_residual.norm"),
        *module(
            f"{LAYER}.attn.c_attn",
            *(f"{OURS}.self_attention.{part}_proj" for part in "qkv"),
            layout="transposed",
        ),
        *module(f"{LAYER}.attn.c_proj", f"{OURS}.self_attention.out_proj", layout="transposed"),
        *module(f"{LAYER}.ln_2", f"{OURS}.ff_residual.norm"),
        *module(f"{LAYER}.mlp.c_fc", f"{OURS}.feed_forward.up", layout="transposed"),
        *module(f"{LAYER}.mlp.c_proj", f"{OURS}.feed_forward.down", layout="transposed"),
        *module("transformer.ln_f", "decoder_norm"),
        tensor("lm_head.weight", "head.projection.weight"),
    ),
    ignored=("*.attn.bias", "*.attn.masked_bias", "multiple_choice_head.*"),
)
