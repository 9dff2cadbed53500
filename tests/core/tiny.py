"""A tiny checkpoint that writes: a real tokenizer, a real model with random weights, no files."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

from tests.core.models import small_config
from tfm.core.checkpoint import Checkpoint
from tfm.core.model import DecoderOnly, EncoderDecoder, Model, build_model
from tfm.core.tokenizer import Tokenizer

TEXTS = [
    "a man in a blue shirt is standing on a ladder .",
    "two dogs play in the snow , 1 , 2 , 12 .",
    "ein mann in einem blauen hemd steht auf einer leiter .",
    "größe, straße, übung: 日本語 🙂",
]


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS * 3, vocab_size=330)


def checkpoint(
    family: str = "encoder-decoder",
    seed: int = 0,
    end: float = 0.0,
    only: tuple[int, ...] | None = None,
    **changes: Any,
) -> Checkpoint:
    """``end`` is added to the logit of the end token; ``only`` are the tokens that can be written."""
    sizes = {"vocab_size": tokenizer().vocab_size, "max_positions": 64, "output_bias": True}
    config = small_config(family, **{**sizes, **tokenizer().special_ids, **changes})
    model = build_model(config).eval()
    fill(model, seed)
    assert isinstance(model, EncoderDecoder | DecoderOnly) and model.head.bias is not None
    assert config.eos_id is not None
    with torch.no_grad():
        model.head.bias[config.eos_id] += end
        if only is not None:
            written = torch.zeros(config.vocab_size, dtype=torch.bool)
            written[list(only)] = True
            model.head.bias[~written] = float("-inf")
    return Checkpoint(model, config, tokenizer(), Path("tiny"))


def fill(model: Model, seed: int) -> None:
    """Random weights that depend on their names and shapes alone, so that results can be pinned."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=random)
            if parameter.ndim > 1:
                parameter.copy_(noise * parameter.shape[-1] ** -0.5)
            else:
                parameter.copy_(noise * 0.2 + (1.0 if name.endswith("norm.weight") else 0.0))
