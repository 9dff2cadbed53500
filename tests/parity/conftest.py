"""Reference models of transformers: tiny, random, saved as the hub has them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
transformers = pytest.importorskip("transformers", reason="the reference implementation is a test extra")

Build = Callable[..., Any]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


@pytest.fixture
def reference(tmp_path: Path) -> Build:
    """``reference("GPT2LMHeadModel", "GPT2Config", tokenizer, {options}, **fields)``: the model, saved."""

    def build(model: str, config: str, save: Callable[[Path], int], **fields: Any) -> Any:
        folder = tmp_path / "published"
        vocab_size = save(folder)
        made = getattr(transformers, model)(getattr(transformers, config)(vocab_size=vocab_size, **fields))
        randomise(made)
        made.save_pretrained(folder)
        return made.eval()

    return build


def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Numbers large enough for a mistake in any one tensor to show, biases and norms included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "embed_positions" in name:
                continue  # computed
            is_norm = parameter.ndim == 1 and not name.endswith("bias")
            parameter.copy_(1 + 0.2 * noise if is_norm else 0.2 * noise)
        for name, buffer in model.named_buffers():
            if name.endswith("final_logits_bias"):
                buffer.copy_(0.5 * torch.randn(buffer.shape, generator=generator))
