"""The structure of a GGUF file (versions 2 and 3): metadata, tensor directory, tokenizer.

Everything here is called in a child process with limits (:mod:`tfm.core.convert.limited`): the file may
come from anywhere, and what it claims is checked against its size before it is believed. A ValueError is
a phrase that fits behind the file's name. Format: the specification in the ggml project, docs/gguf.md.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from typing import Any

import msgspec

# Type of a tensor: its name, elements a block, bytes a block.
TENSOR_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 30: ("BF16", 1, 2),
    2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
}  # fmt: skip
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
SMALL_ARRAY = 4096  # longer ones are the tokenizer's and stay in the child


class TensorPlace(msgspec.Struct, frozen=True):
    """Where a tensor lies in the file."""

    name: str
    type: str
    shape: tuple[int, ...]  # as torch counts: the last axis is the one that is contiguous
    start: int  # bytes from the beginning of the file
    n_bytes: int


class Header(msgspec.Struct, frozen=True):
    """What a file says before its numbers begin."""

    metadata: dict[str, Any]
    tensors: list[TensorPlace]


class Inspected(msgspec.Struct, frozen=True):
    """A header without its long arrays, and what became of them."""

    metadata: dict[str, Any]
    tensors: list[TensorPlace]
    n_tokens: int
    tokenizer: str  # the text of a tokenizer.json


def inspect(path: str) -> Inspected:
    """Read and check all of a file but its numbers."""
    from tfm.core.convert.gguf_tokenizer import build_tokenizer

    header = read_header(path)
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list):
        raise ValueError("holds no tokenizer (metadata key tokenizer.ggml.tokens)")
    tokenizer = build_tokenizer(header.metadata)
    metadata = {
        name: value
        for name, value in header.metadata.items()
        if not (isinstance(value, list) and len(value) > SMALL_ARRAY)
    }
    return Inspected(metadata, header.tensors, len(tokens), tokenizer.to_str())


def read_header(path: str) -> Header:
    """Metadata and tensor directory. Raises ValueError naming the key or the tensor that is wrong."""
    with open(path, "rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError("is no GGUF file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Cursor(data).header()


class _Cursor:
    """Reads one value after another, never past the end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.position, self.what = data, 4, "header"

    def header(self) -> Header:
        version = self.number("I")
        if version not in (2, 3):
            raise ValueError(
                "is big-endian; only little-endian files can be read"
                if version & 0xFFFF == 0
                else f"is of GGUF version {version}; only versions 2 and 3 can be read"
            )
        n_tensors, n_keys = self.number("Q"), self.number("Q")
        metadata: dict[str, Any] = {}
        for number in range(n_keys):
            self.what = f"metadata key number {number + 1:,} of {n_keys:,}"
            name = self.text()
            self.what = f"metadata key {name!r}"
            if name in metadata:
                raise ValueError(f"has the {self.what} twice")
            metadata[name] = self.value(self.number("I"))
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20:
            raise ValueError(f"has an alignment of {alignment!r} (general.alignment)")
        entries = []
        for number in range(n_tensors):
            self.what = f"tensor number {number + 1:,} of {n_tensors:,}"
            entries.append(self.entry())
        self.position += -self.position % alignment
        tensors = [self.placed(*entry) for entry in entries]
        if len({tensor.name for tensor in tensors}) < len(tensors):
            raise ValueError("holds two tensors of the same name")
        return Header(metadata, tensors)

    def entry(self) -> tuple[str, int, tuple[int, ...], int]:
        """Name, type, shape and offset of a tensor."""
        name = self.text()
        self.what = f"tensor {name!r}"
        n_axes = self.number("I")
        if not 1 <= n_axes <= 4:
            raise ValueError(f"says that {self.what} has {n_axes:,} axes")
        lengths = tuple(self.number("Q") for _ in range(n_axes))
        return name, self.number("I"), lengths[::-1], self.number("Q")

    def placed(self, name: str, kind: int, shape: tuple[int, ...], offset: int) -> TensorPlace:
        if kind not in TENSOR_TYPES:
            known = ", ".join(name for name, _, _ in TENSOR_TYPES.values())
            raise ValueError(f"holds tensor {name!r} in a format (number {kind}) that is none of {known}")
        type_name, block, block_bytes = TENSOR_TYPES[kind]
        if min(shape) < 1 or shape[-1] % block:
            raise ValueError(f"says that tensor {name!r} of type {type_name} has the shape {list(shape)}")
        count = 1
        for length in shape:
            count *= length
        n_bytes = count // block * block_bytes
        start = self.position + offset
        if start + n_bytes > len(self.data):
            raise ValueError(
                f"is cut short: tensor {name!r} ends at byte {start + n_bytes:,}, and the file at byte "
                f"{len(self.data):,}"
            )
        return TensorPlace(name, type_name, shape, start, n_bytes)

    def value(self, kind: int) -> Any:
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            raise ValueError(f"gives the {self.what} a type (number {kind}) that does not exist")
        kind, length = self.number("I"), self.number("Q")
        if kind == STRING:
            self.must_hold(8 * length)
            return [self.text() for _ in range(length)]
        if kind not in SCALARS:
            raise ValueError(f"has an array in the {self.what} whose elements have type number {kind}")
        size = struct.calcsize(SCALARS[kind])
        self.must_hold(size * length)
        found = struct.unpack_from(f"<{length}{SCALARS[kind]}", self.data, self.position)
        self.position += size * length
        return list(found)

    def number(self, form: str) -> Any:
        size = struct.calcsize(form)
        self.must_hold(size)
        (found,) = struct.unpack_from("<" + form, self.data, self.position)
        self.position += size
        return found

    def text(self) -> str:
        length = self.number("Q")
        self.must_hold(length)
        raw = self.data[self.position : self.position + length]
        self.position += length
        # Token texts may be cut within a character; the rest of the file is meant to be UTF-8.
        return raw.decode("utf-8", errors="replace")

    def must_hold(self, n_bytes: int) -> None:
        if self.position + n_bytes > len(self.data):
            raise ValueError(f"is cut short or damaged: the {self.what} goes past its end")


def whole_number(metadata: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A metadata value that must be a whole number from 0 up."""
    value = metadata.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        problem = "is missing" if value is None else f"is {value!r} instead of a whole number"
        raise ValueError(f"cannot be used: metadata key {name} {problem}")
    return value
