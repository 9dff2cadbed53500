"""GGUF files made with the ``gguf`` package from models of transformers, the way llama.cpp converts them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import tokenizers
import torch
from gguf import GGMLQuantizationType, GGUFWriter

Array = npt.NDArray[Any]
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
SCALES = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}  # half floats


def gguf_name(name: str) -> str:
    """``model.layers.0.mlp.up_proj.weight`` -> ``blk.0.ffn_up.weight``."""
    stem, kind = name.rsplit(".", 1)
    if stem.startswith("model.layers."):
        _, _, layer, inner = stem.split(".", 3)
        return f"blk.{layer}.{NAMES[inner]}.{kind}"
    return f"{NAMES[stem]}.{kind}"


def row_order(n_rows: int, n_heads: int) -> Array:
    """Where llama.cpp takes the rows of a query or key projection from."""
    rows = np.arange(n_rows).reshape(n_heads, 2, n_rows // n_heads // 2)
    return rows.swapaxes(1, 2).reshape(-1)


def quantized(weights: Array, kind: str, seed: int) -> Array:
    """Bytes of a tensor in a format; where the package only reads one, blocks are drawn at random."""
    quantization = GGMLQuantizationType[kind]
    if kind not in SCALES:
        return np.asarray(gguf.quants.quantize(weights, quantization))
    block, n_bytes = gguf.GGML_QUANT_SIZES[quantization]
    generator = np.random.default_rng(seed)
    rows, width = weights.shape
    blocks = generator.integers(0, 256, (rows * width // block, n_bytes), dtype=np.uint8)
    for at in SCALES[kind]:
        scale = generator.uniform(2e-5, 2e-4, (len(blocks), 1)).astype(np.float16)
        blocks[:, at : at + 2] = scale.view(np.uint8)
    return blocks.reshape(rows, -1)


def write_model(
    path: Path,
    model: Any,
    architecture: str,
    kind: str = "F32",
    edit: Callable[[GGUFWriter], None] | None = None,
    tokenizer: Mapping[str, Any] | None = None,
    more: Mapping[str, Array] | None = None,
) -> None:
    """Write the file, and put into ``model`` the numbers that the file really holds.

    ``kind`` is the format of all matrices; vectors stay float32, as in files in use.
    """
    config = model.config
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head)
    writer.add_value_length(head)
    write_tokenizer(writer, tokenizer or {})
    if edit is not None:
        edit(writer)
    with torch.no_grad():
        for seed, (name, parameter) in enumerate(model.named_parameters()):
            weights = parameter.float().numpy()
            stored = kind if weights.ndim == 2 else "F32"
            order = np.arange(len(weights))
            if architecture == "llama" and "q_proj" in name:
                order = row_order(len(weights), config.num_attention_heads)
            if architecture == "llama" and "k_proj" in name:
                order = row_order(len(weights), config.num_key_value_heads)
            data = weights[order].copy() if stored == "F32" else quantized(weights[order], stored, seed)
            raw = None if stored == "F32" else GGMLQuantizationType[stored]
            writer.add_tensor(gguf_name(name), data, raw_dtype=raw)
            held = np.empty_like(weights)
            held[order] = data if raw is None else gguf.quants.dequantize(data, raw).reshape(weights.shape)
            parameter.copy_(torch.from_numpy(held))
    for name, numbers in (more or {}).items():
        writer.add_tensor(name, numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_tokenizer(writer: GGUFWriter, facts: Mapping[str, Any]) -> None:
    """``tokenizer.ggml.*`` from a mapping of the writer's own names."""
    for name, value in facts.items():
        getattr(writer, f"add_{name}")(value)


def byte_level(text: str, pre: str) -> dict[str, Any]:
    """The facts of a byte-level tokenizer.json."""
    pipeline = json.loads(text)
    backend = tokenizers.Tokenizer.from_str(text)
    tokens = [backend.id_to_token(index) for index in range(backend.get_vocab_size())]
    kinds = {
        token["content"]: CONTROL if token["special"] else USER_DEFINED for token in pipeline["added_tokens"]
    }
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in pipeline["model"]["merges"]]
    return {
        "tokenizer_model": "gpt2",
        "tokenizer_pre": pre,
        "token_list": tokens,
        "token_types": [kinds.get(token, NORMAL) for token in tokens],
        "token_merges": merges,
    }
