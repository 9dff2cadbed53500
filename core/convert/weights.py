"""Tensors of a folder read one at a time, and a safetensors file written one tensor at a time.

Neither direction ever holds more than a few tensors, so a checkpoint larger than the memory converts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import safetensors
import torch
from torch import Tensor

from tfm.core.convert.table import ConvertError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAX_INDEX = 64 << 20  # bytes


class Planned(NamedTuple):
    """A tensor that will be written."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


class StoredTensors:
    """The tensors of ``model.safetensors``, or of the shards that an index names.

    Files are read, not memory-mapped: one that shrinks meanwhile is an error, not a SIGBUS.

    Raises:
        ConvertError: naming the file that is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, Any] = {}
        self._where: dict[str, str] = {}
        index = folder / INDEX
        if index.is_file():
            self._where = _read_index(index)
            for name, file in self._where.items():
                if name not in self._open(file).keys():  # noqa: SIM118  (the handle is no dict)
                    raise ConvertError(
                        f"{folder / file}: tensor {name} is missing, though {INDEX} says it is there"
                    )
        elif (folder / WEIGHTS).is_file():
            self._where = dict.fromkeys(self._open(WEIGHTS).keys(), WEIGHTS)
        else:
            pickled = any(folder.glob("pytorch_model*.bin"))
            hint = "; pickled weights are not read: convert them to safetensors first" if pickled else ""
            raise ConvertError(f"{folder}: {WEIGHTS} is missing{hint}")

    @property
    def names(self) -> set[str]:
        return set(self._where)

    def path(self, name: str) -> Path:
        """The file that holds a tensor."""
        return self.folder / self._where[name]

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._slice(name).get_shape())

    def dtype(self, name: str) -> torch.dtype:
        stored = str(self._slice(name).get_dtype())
        if stored not in DTYPES:
            raise ConvertError(
                f"{self.path(name)}: tensor {name} is stored as {stored}, only {', '.join(DTYPES)} are read"
            )
        return DTYPES[stored]

    def read(self, name: str) -> Tensor:
        try:
            tensor: Tensor = self._open(self._where[name]).get_tensor(name)
        except (OSError, safetensors.SafetensorError) as error:
            raise ConvertError(f"{self.path(name)}: tensor {name} cannot be read: {error}") from None
        return tensor

    def _slice(self, name: str) -> Any:
        return self._open(self._where[name]).get_slice(name)

    def _open(self, file: str) -> Any:
        if file not in self._files:
            path = self.folder / file
            if not path.is_file():
                raise ConvertError(f"{path} is missing, though {INDEX} names it")
            try:
                self._files[file] = safetensors.safe_open(path, framework="pt", backend="pread")
            except (OSError, safetensors.SafetensorError) as error:
                raise ConvertError(f"{path} is cut short or no safetensors file: {error}") from None
        return self._files[file]


def _read_index(path: Path) -> dict[str, str]:
    class Index(msgspec.Struct):
        weight_map: dict[str, str]

    try:
        if path.stat().st_size > MAX_INDEX:
            raise ConvertError(f"{path} is larger than {MAX_INDEX:,} bytes")
        where = msgspec.json.decode(path.read_bytes(), type=Index).weight_map
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConvertError(f"{path}: {error}") from None
    for file in where.values():
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise ConvertError(f"{path}: {file!r} is no name of a safetensors file")
    return where


def write_tensors(
    path: Path,
    planned: Sequence[Planned],
    make: Iterable[tuple[str, Tensor]],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a safetensors file from tensors that come in any order, each once.

    Args:
        progress: told the bytes written and the bytes in all, after each tensor.
    """
    # Wider numbers first, so that each is aligned to its own size.
    ordered = sorted(planned, key=lambda plan: (-plan.dtype.itemsize, plan.name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offsets: dict[str, tuple[int, int]] = {}
    end = 0
    for plan in ordered:
        begin, end = end, end + math.prod(plan.shape) * plan.dtype.itemsize
        offsets[plan.name] = (begin, end)
        header[plan.name] = {"dtype": NAMES[plan.dtype], "shape": plan.shape, "data_offsets": [begin, end]}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    dtypes = {plan.name: plan.dtype for plan in ordered}
    written = 0
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little"))
        file.write(encoded)
        for name, tensor in make:
            begin, stop = offsets.pop(name)
            raw = tensor.to(dtypes[name]).contiguous().reshape(-1).view(torch.uint8).numpy()
            assert raw.nbytes == stop - begin, f"{name} is not what was planned"
            file.seek(8 + len(encoded) + begin)
            file.write(raw.data)
            written += raw.nbytes
            if progress is not None:
                progress(written, end)
    assert not offsets, f"never written: {sorted(offsets)}"
