"""Small seeded models for the tests of the core: one per family and variant."""

from __future__ import annotations

from typing import Any

import torch

from tfm.core.config import ModelConfig
from tfm.core.model import Model, build_model

SMALL: dict[str, Any] = {"vocab_size": 61, "d_model": 32, "n_heads": 4, "d_ff": 48, "bos_id": 1, "eos_id": 2}
LAYERS: dict[str, dict[str, Any]] = {
    "encoder-decoder": {"n_encoder_layers": 2, "n_decoder_layers": 2},
    "decoder-only": {"n_decoder_layers": 2},
    "encoder-only": {"n_encoder_layers": 2},
}


def small_config(family: str = "encoder-decoder", **changes: Any) -> ModelConfig:
    return ModelConfig.create(family=family, **{**SMALL, **LAYERS[family], **changes})


def small_model(family: str = "encoder-decoder", seed: int = 0, **changes: Any) -> Model:
    """A model in evaluation mode with every weight random, biases and norms too."""
    torch.manual_seed(seed)
    model = build_model(small_config(family, **changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model
