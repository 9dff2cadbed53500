"""Marian (post-norm) and M2M100/NLLB (pre-norm): encoder-decoders with computed sinusoidal positions."""

from __future__ import annotations

from typing import Any

from tfm.core.config import ModelConfig
from tfm.core.convert.table import Both, ConvertError, Family, Key, Only, Raw, Rule, key, module, tensor

ACTIVATIONS = {"relu": "relu", "swish": "silu", "silu": "silu", "gelu": "gelu", "gelu_new": "gelu_tanh"}


def _read_widths(raw: Raw) -> dict[str, Any]:
    """Encoder and decoder may differ in theirs; in ours they are equally wide."""
    for part in ("attention_heads", "ffn_dim"):
        encoder, decoder = raw.get(f"encoder_{part}"), raw.get(f"decoder_{part}")
        if encoder != decoder:
            raise ConvertError(
                f"encoder_{part} = {encoder!r} but decoder_{part} = {decoder!r}: they must be equal"
            )
    return {}


def _write_widths(config: ModelConfig) -> dict[str, Any]:
    return {"decoder_attention_heads": config.n_heads, "decoder_ffn_dim": config.d_ff}


def _read_offset(raw: Raw) -> dict[str, Any]:
    """M2M100 counts positions from pad + 1, as fairseq does."""
    pad = raw.get("pad_token_id", 1)
    if not isinstance(pad, int) or pad < 0:
        raise ConvertError(f"pad_token_id must be a token id, not {pad!r}")
    return {"position_offset": pad + 1}


def _write_offset(config: ModelConfig) -> dict[str, Any]:
    return {"pad_token_id": max(config.position_offset - 1, 0)}


def _read_target_vocabulary(raw: Raw) -> dict[str, Any]:
    source, target = raw.get("vocab_size"), raw.get("decoder_vocab_size")
    if target is not None and target != source:
        raise ConvertError(f"decoder_vocab_size = {target!r}, vocab_size = {source!r}: they must be equal")
    return {}


def _write_target_vocabulary(config: ModelConfig) -> dict[str, Any]:
    return {"decoder_vocab_size": config.vocab_size}


KEYS: tuple[Key | Only | Both, ...] = (
    key("vocab_size", "vocab_size"),
    key("d_model", "d_model"),
    key("encoder_layers", "n_encoder_layers"),
    key("decoder_layers", "n_decoder_layers"),
    key("encoder_attention_heads", "n_heads"),
    key("encoder_ffn_dim", "d_ff"),
    Both(_read_widths, _write_widths),
    key("max_position_embeddings", "max_positions"),
    key("activation_function", "activation", default="relu", names=ACTIVATIONS),
    key("scale_embedding", "scale_embeddings", default=False),
    key("dropout", "dropout", default=0.0),
    Only("is_encoder_decoder", True),
)
FIXED = {"family": "encoder-decoder", "positions": "sinusoidal", "norm": "layernorm", "norm_eps": 1e-5}


def _attention(theirs: str, ours: str) -> tuple[Rule, ...]:
    return (
        *module(f"{theirs}.q_proj", f"{ours}.q_proj"),
        *module(f"{theirs}.k_proj", f"{ours}.k_proj"),
        *module(f"{theirs}.v_proj", f"{ours}.v_proj"),
        *module(f"{theirs}.out_proj", f"{ours}.out_proj"),
    )


def _layer(part: str) -> tuple[Rule, ...]:
    theirs, ours = f"model.{part}.layers.{{i}}", f"{part}_layers.{{i}}"
    return (
        *_attention(f"{theirs}.self_attn", f"{ours}.self_attention"),
        *module(f"{theirs}.self_attn_layer_norm", f"{ours}.self_residual.norm"),
        *module(f"{theirs}.fc1", f"{ours}.feed_forward.up"),
        *module(f"{theirs}.fc2", f"{ours}.feed_forward.down"),
        *module(f"{theirs}.final_layer_norm", f"{ours}.ff_residual.norm"),
    )


CROSS, OURS_CROSS = "model.decoder.layers.{i}.encoder_attn", "decoder_layers.{i}"
LAYERS: tuple[Rule, ...] = (
    *_layer("encoder"),
    *_layer("decoder"),
    *_attention(CROSS, f"{OURS_CROSS}.cross_attention"),
    *module(f"{CROSS}_layer_norm", f"{OURS_CROSS}.cross_residual.norm"),
)
# One table for source, target and output, or three: nothing in between was ever published.
TIED = Only("tie_word_embeddings", True)
TABLES = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
# Positions are computed; the other names repeat a table that is shared.
IGNORED = (
    "*.embed_positions.weight",
    "*.embed_positions.weights",
    "*.embed_tokens.weight",
    "model.shared.weight",
)

_MARIAN_KEYS: tuple[Key | Only | Both, ...] = (
    *KEYS,
    Both(_read_target_vocabulary, _write_target_vocabulary),
    Only("normalize_before", False, written=False),
    Only("normalize_embedding", False, written=False),
    Only("add_final_layer_norm", False, written=False),
    Only("static_position_embeddings", True, written=False),
)
_MARIAN_FIXED = {**FIXED, "norm_position": "post", "sinusoidal_layout": "halves", "output_bias": True}
_MARIAN_HEAD: tuple[Rule, ...] = (
    tensor("lm_head.weight", "head.projection.weight"),
    tensor("final_logits_bias", "head.bias", layout="row", zeros=True),
)

_SHARED = (tensor("model.shared.weight", "source_embedding.tokens.weight", also=TABLES),)
_SEPARATE = (
    tensor(TABLES[0], "source_embedding.tokens.weight"),
    tensor(TABLES[1], "target_embedding.tokens.weight"),
)

MARIAN = Family(
    model_type="marian",
    architecture="MarianMTModel",
    accepted=("MarianModel",),
    keys=(*_MARIAN_KEYS, Only("share_encoder_decoder_embeddings", True), TIED),
    fixed={**_MARIAN_FIXED, "share_embeddings": True, "tie_output": True},
    rules=(*_SHARED, *LAYERS, *_MARIAN_HEAD),
    ignored=IGNORED,
)

MARIAN_SEPARATE = Family(
    model_type="marian",
    architecture="MarianMTModel",
    accepted=("MarianModel",),
    keys=(
        *_MARIAN_KEYS,
        Only("share_encoder_decoder_embeddings", False),
        key("tie_word_embeddings", "tie_output", default=True),
    ),
    fixed={**_MARIAN_FIXED, "share_embeddings": False},
    rules=(*_SEPARATE, *LAYERS, *_MARIAN_HEAD),
    ignored=IGNORED,
)

M2M100 = Family(
    model_type="m2m_100",
    architecture="M2M100ForConditionalGeneration",
    accepted=("M2M100Model",),
    keys=(
        *KEYS,
        Both(_read_offset, _write_offset),
        TIED,
    ),
    fixed={
        **FIXED,
        "norm_position": "pre",
        "sinusoidal_layout": "halves-t2t",
        "output_bias": False,
        "share_embeddings": True,
        "tie_output": True,
    },
    rules=(
        *_SHARED,
        *LAYERS,
        *module("model.encoder.layer_norm", "encoder_norm"),
        *module("model.decoder.layer_norm", "decoder_norm"),
    ),
    ignored=IGNORED,
)
