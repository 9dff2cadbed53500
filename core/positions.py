"""Where a token stands: sinusoidal, learned and rotary positions.

Letters: B batch, T tokens, D d_model, P positions, d head size.

Sinusoidal and learned positions are vectors added to the embeddings once, before the first
layer. Rotary positions turn each query and key by an angle that grows with the position, so that
their product depends only on how far apart they are; they act inside every attention.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tfm.core.config import ModelConfig, RopeScaling, SinusoidalLayout

Rotary = tuple[Tensor, Tensor]  # cos and sin, each (B or 1, 1, T, d)


def sinusoidal_table(n_positions: int, d_model: int, layout: SinusoidalLayout = "interleaved") -> Tensor:
    """The fixed table of Vaswani et al. 2017, section 3.5: (P, D), float32.

    ``interleaved`` is the paper's: PE[p, 2i] = sin(p / 10000^(2i/D)), PE[p, 2i+1] = cos of the
    same. ``halves`` (Marian) holds all sines, then all cosines. ``halves-t2t`` (tensor2tensor,
    fairseq, M2M100) does too, with frequencies spread so that the last is exactly 1/10000.
    """
    half = d_model // 2
    steps = torch.arange(half, dtype=torch.float64, device="cpu")  # see _table in tfm.core.model
    span = max(half - 1, 1) if layout == "halves-t2t" else half
    frequencies = torch.exp(steps * -(math.log(10_000.0) / span))
    angles = torch.arange(n_positions, dtype=torch.float64, device="cpu")[:, None] * frequencies
    if layout == "interleaved":
        return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1).float()
    return torch.cat((angles.sin(), angles.cos()), dim=-1).float()


class AbsolutePositions(nn.Module):
    """Adds a sinusoidal or learned vector to each embedding."""

    table: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.offset = config.position_offset
        if config.positions == "learned":
            self.table = nn.Parameter(torch.empty(config.max_positions + self.offset, config.d_model))
        else:
            self.make_tables(config)

    def make_tables(self, config: ModelConfig, device: torch.device | str | None = None) -> None:
        """Compute what is not learned; a checkpoint does not hold it."""
        if config.positions == "sinusoidal":
            rows = config.max_positions + self.offset
            table = sinusoidal_table(rows, config.d_model, config.sinusoidal_layout)
            self.register_buffer("table", table.to(device), persistent=False)

    def forward(self, x_BTD: Tensor, positions_BT: Tensor) -> Tensor:
        """(B, T, D), (B or 1, T) -> (B, T, D)."""
        vectors: Tensor = nn.functional.embedding(positions_BT + self.offset, self.table)
        return x_BTD + vectors.to(x_BTD.dtype)


def rotary_frequencies(head_dim: int, theta: float, scaling: RopeScaling | None = None) -> Tensor:
    """Angle per position of each pair of features: (d/2,), float32. Su et al. 2021 (RoFormer)."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64, device="cpu").float() / head_dim
    frequencies = 1.0 / theta**exponents
    if scaling is None:
        return frequencies
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    # llama3: keep short wavelengths, divide long ones, blend in between (Llama 3.1 release).
    wavelengths = 2 * math.pi / frequencies
    context = scaling.original_max_positions
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    blend = ((context / wavelengths - low) / (high - low)).clamp(0.0, 1.0)
    return (1.0 - blend) * frequencies / scaling.factor + blend * frequencies


class RotaryPositions(nn.Module):
    """Computes cosines and sines of the angles for given positions."""

    frequencies: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.make_tables(config)

    def make_tables(self, config: ModelConfig, device: torch.device | str | None = None) -> None:
        """Compute the frequencies; a checkpoint does not hold them."""
        frequencies = rotary_frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
        self.register_buffer("frequencies", frequencies.to(device), persistent=False)

    def forward(self, positions_BT: Tensor) -> Rotary:
        """(B or 1, T) -> cos, sin, each (B or 1, 1, T, d), float32."""
        angles = positions_BT[:, None, :, None].float() * self.frequencies.float()
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()


def rotate(x_BHTd: Tensor, rotary: Rotary) -> Tensor:
    """Turn feature i together with feature i + d/2 by the angle of the token's position."""
    cos, sin = (part.to(x_BHTd.dtype) for part in rotary)
    first, second = x_BHTd.chunk(2, dim=-1)
    return x_BHTd * cos + torch.cat((-second, first), dim=-1) * sin
