"""GPT-2, Llama, Mistral, Qwen2, Qwen3: random references in, the same numbers and words out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.parity.compare import assert_parity
from tests.parity.conftest import Build
from tests.parity.tokenizers_for_tests import chat_json, gpt2_json, llama_json, save_tokenizer

Save = Callable[[Path], int]


def gpt2_tokenizer(folder: Path) -> int:
    return save_tokenizer(folder, gpt2_json(), bos_token="<|endoftext|>", eos_token="<|endoftext|>")


def llama_tokenizer(folder: Path) -> int:
    return save_tokenizer(folder, llama_json(), bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def chat_tokenizer(folder: Path) -> int:
    return save_tokenizer(
        folder, chat_json(), bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tie_word_embeddings": False, "n_inner": 40, "activation_function": "gelu"},
        {"activation_function": "relu", "layer_norm_epsilon": 1e-3, "n_layer": 1},
    ],
    ids=["as-published", "untied-own-width", "relu-eps"],
)
def test_gpt2(reference: Build, tmp_path: Path, fields: dict[str, Any]) -> None:
    shape = {
        "n_positions": 128,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    model = reference("GPT2LMHeadModel", "GPT2Config", gpt2_tokenizer, **{**shape, **fields})
    ours = assert_parity(tmp_path / "published", model, "GPT2LMHeadModel")
    assert ours.config.bos_id is None  # the tokenizer puts nothing in front


SHAPE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 128,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32, "rope_theta": 5000.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("save", "fields"),
    [
        (llama_tokenizer, {"num_key_value_heads": 4}),
        (llama_tokenizer, {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True}),
        (chat_tokenizer, {"num_key_value_heads": 2, "tie_word_embeddings": True, "eos_token_id": [1, 2]}),
        (llama_tokenizer, {"num_key_value_heads": 2, "rope_parameters": LLAMA3}),
        (
            llama_tokenizer,
            {
                "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
                "head_dim": 16,
            },
        ),
    ],
    ids=["llama2", "multi-query-biases", "smollm2-tied", "llama3-rope", "linear-rope-wide-heads"],
)
def test_llama(reference: Build, tmp_path: Path, save: Save, fields: dict[str, Any]) -> None:
    ids = {"bos_token_id": 1, "eos_token_id": 2}
    model = reference("LlamaForCausalLM", "LlamaConfig", save, **{**SHAPE, **ids, **fields})
    ours = assert_parity(tmp_path / "published", model, "LlamaForCausalLM")
    assert ours.config.bos_id == (1 if save is llama_tokenizer else None)


@pytest.mark.parametrize(
    "fields",
    [{"sliding_window": None}, {"sliding_window": 6}, {"sliding_window": 9, "head_dim": 12}],
    ids=["no-window", "window", "window-wide-heads"],
)
def test_mistral(reference: Build, tmp_path: Path, fields: dict[str, Any]) -> None:
    model = reference(
        "MistralForCausalLM", "MistralConfig", llama_tokenizer, **SHAPE, num_key_value_heads=2, **fields
    )
    ours = assert_parity(tmp_path / "published", model, "MistralForCausalLM")
    assert ours.config.sliding_window == fields["sliding_window"]


WINDOW = {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 0}


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("Qwen2", {"num_key_value_heads": 2, "eos_token_id": [1, 2]}),
        ("Qwen2", {"num_key_value_heads": 4, "tie_word_embeddings": True, "eos_token_id": 381, **WINDOW}),
        ("Qwen3", {"num_key_value_heads": 2, "head_dim": 16, "eos_token_id": [381, 0]}),
        (
            "Qwen3",
            {
                "num_key_value_heads": 1,
                "head_dim": 8,
                "attention_bias": True,
                "tie_word_embeddings": True,
                "eos_token_id": 0,
            },
        ),
    ],
    ids=["qwen2", "qwen2-tied-window", "qwen3-wide-heads", "qwen3-biases-tied"],
)
def test_qwen(reference: Build, tmp_path: Path, name: str, fields: dict[str, Any]) -> None:
    model = reference(f"{name}ForCausalLM", f"{name}Config", chat_tokenizer, **SHAPE, **fields)
    ours = assert_parity(tmp_path / "published", model, f"{name}ForCausalLM")
    assert ours.config.qk_norm == (name == "Qwen3")
