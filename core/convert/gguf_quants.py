"""Numbers out of GGUF's blocks: each block of weights shares a scale, w = d * q (+ m).

The formats of 32 weights a block are a few lines each and are written out here. The K formats, with
scales of scales over 256 weights, are left to the ``gguf`` package (an extra).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

BLOCK = 32
SLICE = 1 << 15  # blocks unpacked at a time, so that the steps on the way need little memory


def dequantize(data: Bytes, kind: str) -> Floats:
    """The weights of a whole tensor as one row of float32, exactly what the blocks say.

    Raises:
        NotImplementedError: the format needs the ``gguf`` package, and it is not installed.
    """
    with np.errstate(all="ignore"):  # what is not finite is found by whoever reads the weights
        return _unpacked(data, kind)


def _unpacked(data: Bytes, kind: str) -> Floats:
    if kind in _FORMATS:
        n_bytes, unpack = _FORMATS[kind]
        blocks = data.reshape(-1, n_bytes)
        weights = np.empty((len(blocks), BLOCK), dtype=np.float32)
        for begin in range(0, len(blocks), SLICE):
            weights[begin : begin + SLICE] = unpack(blocks[begin : begin + SLICE])
        return weights.reshape(-1)
    try:
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize as unpack_k
    except ImportError:
        raise NotImplementedError(
            f"holds tensors of type {kind}, which the gguf package reads: pip install 'tfm-tui[gguf]'"
        ) from None
    unpacked: Floats = unpack_k(data[None], GGMLQuantizationType[kind])
    return unpacked.reshape(-1)


def _q4_0(blocks: Bytes) -> Floats:
    return _scale(blocks, 0) * (_nibbles(blocks[:, 2:18]) - 8)


def _q4_1(blocks: Bytes) -> Floats:
    return _scale(blocks, 0) * _nibbles(blocks[:, 4:20]) + _scale(blocks, 2)


def _q5_0(blocks: Bytes) -> Floats:
    return _scale(blocks, 0) * (_nibbles(blocks[:, 6:22]) + _fifth_bits(blocks[:, 2:6]) - 16)


def _q5_1(blocks: Bytes) -> Floats:
    return _scale(blocks, 0) * (_nibbles(blocks[:, 8:24]) + _fifth_bits(blocks[:, 4:8])) + _scale(blocks, 2)


def _q8_0(blocks: Bytes) -> Floats:
    return _scale(blocks, 0) * blocks[:, 2:34].view(np.int8).astype(np.float32)


_FORMATS = {
    "Q4_0": (18, _q4_0),
    "Q4_1": (20, _q4_1),
    "Q5_0": (22, _q5_0),
    "Q5_1": (24, _q5_1),
    "Q8_0": (34, _q8_0),
}


def _scale(blocks: Bytes, at: int) -> Floats:
    """A half-precision number a block: (n, 1)."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float32)


def _nibbles(packed: Bytes) -> Floats:
    """The low halves of 16 bytes, then the high halves: (n, 32)."""
    return np.concatenate((packed & 0x0F, packed >> 4), axis=1).astype(np.float32)


def _fifth_bits(packed: Bytes) -> Floats:
    """One bit a weight, least significant first, worth 16: (n, 32)."""
    return np.unpackbits(packed, axis=1, bitorder="little").astype(np.float32) * 16
