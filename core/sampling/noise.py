"""Keyed noise: the random number of (seed, position, token id) is a function of those three.

A generator has a state, so what it gives depends on what was drawn before: on the batch, the
vocabulary, the truncation. Here nothing is drawn. Each number is hashed from its key (a counter-based
generator, Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"), so the noise of a token
is the same in any batch, on any device, in any order, and whether or not other tokens are looked at.

The hash is the finaliser of SplitMix64 (Steele et al. 2014, "Fast Splittable Pseudorandom Number
Generators"), in integers modulo 2^64. Seed and position are folded in Python, token ids in torch,
where int64 products wrap to the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

CHANCE = -1
"""The "token id" of a coin that is thrown once a position and belongs to no token (xtc)."""

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd: steps of it fill the ring evenly
_MIX_1, _MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def uniform(seeds: Sequence[int], positions: Sequence[int], ids: Tensor) -> Tensor:
    """Uniform numbers strictly inside (0, 1): ids (K,) or (B, K) int64 -> (B, K) float64.

    Row i is keyed by ``seeds[i]`` and ``positions[i]``. The top 52 bits of the hash count steps of
    2^-52 and half a step is added, which float64 holds exactly: 0 and 1 cannot come out.
    """
    keys = [_signed(_stream(seed, position)) for seed, position in zip(seeds, positions, strict=True)]
    hashed = ids * _signed(_GOLDEN) + torch.tensor(keys, device=ids.device)[:, None]
    hashed.bitwise_xor_(_shift_right(hashed, 30)).mul_(_signed(_MIX_1))
    hashed.bitwise_xor_(_shift_right(hashed, 27)).mul_(_signed(_MIX_2))
    hashed.bitwise_xor_(_shift_right(hashed, 31))
    return _shift_right(hashed, 12).double().add_(0.5).mul_(2.0**-52)


def gumbel(seeds: Sequence[int], positions: Sequence[int], ids: Tensor) -> Tensor:
    """Standard Gumbel noise, -ln(-ln(u)); shapes as in :func:`uniform`.

    argmax of z + noise is a draw from softmax(z) (Gumbel 1954; Maddison et al. 2014, "A* Sampling").
    """
    return uniform(seeds, positions, ids).log_().neg_().log_().neg_()


def _stream(seed: int, position: int) -> int:
    return _mix((_mix((seed + _GOLDEN) & _MASK) + position * _GOLDEN) & _MASK)


def _mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * _MIX_1) & _MASK
    x = ((x ^ (x >> 27)) * _MIX_2) & _MASK
    return x ^ (x >> 31)


def _signed(x: int) -> int:
    """The int64 with the same 64 bits."""
    return x - 2**64 if x >= 2**63 else x


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift; torch's own keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
