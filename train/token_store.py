"""Token ids on the disk, memory-mapped: a corpus need not fit into memory to be trained on.

    index.json           rows and type of each column, and notes (how many examples were left out)
    <column>.bin         the ids of all rows, one after another, as uint8, uint16 or uint32
    <column>.offsets     where each row begins and where the last one ends, as int64

A folder is written once, in one commit, and never changed. Rows are views of the file: what is not
looked at costs no memory, and what was is the operating system's to forget.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, overload

import msgspec
import numpy as np

from tfm.core.checkpoint import committed

INDEX = "index.json"
FORMAT = 1


class Column(msgspec.Struct, frozen=True):
    dtype: str
    n_rows: int
    n_tokens: int


class Index(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    columns: dict[str, Column]
    notes: dict[str, int]


class Rows(Sequence[np.ndarray]):
    """Rows of ids, each a read-only view."""

    def __init__(self, tokens: np.ndarray, offsets: np.ndarray) -> None:
        self.tokens, self.offsets = tokens, offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> Rows: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | Rows:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            assert step == 1
            return Rows(self.tokens, self.offsets[start : max(start, stop) + 1])
        number = range(len(self))[index]  # IndexError beyond the end
        return self.tokens[self.offsets[number] : self.offsets[number + 1]]

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)


class TokenStore:
    """A folder of columns, opened."""

    def __init__(self, folder: Path, index: Index) -> None:
        self._folder, self._index = folder, index
        self.notes = index.notes

    @classmethod
    def open(cls, folder: Path) -> TokenStore | None:
        """None where there is no such folder, or one that is not whole."""
        try:
            index = msgspec.json.decode((folder / INDEX).read_bytes(), type=Index)
            for name, column in index.columns.items():
                size = (folder / f"{name}.bin").stat().st_size
                offsets = (folder / f"{name}.offsets").stat().st_size
                wanted = column.n_tokens * np.dtype(column.dtype).itemsize
                if (size, offsets) != (wanted, 8 * (column.n_rows + 1)):
                    return None
        except (OSError, msgspec.DecodeError):
            return None
        return cls(folder, index) if index.format == FORMAT else None

    def rows(self, name: str) -> Rows:
        column = self._index.columns[name]
        tokens = _map(self._folder / f"{name}.bin", column.dtype, column.n_tokens)
        return Rows(tokens, _map(self._folder / f"{name}.offsets", "int64", column.n_rows + 1))


class StoreWriter:
    """Writes columns row by row; see :func:`written`."""

    def __init__(self, folder: Path, columns: dict[str, str]) -> None:
        self._dtypes, self._ends, self._n_rows = columns, dict.fromkeys(columns, 0), dict.fromkeys(columns, 0)
        self._files: dict[str, tuple[IO[bytes], IO[bytes]]] = {}
        for name in columns:
            tokens, offsets = (folder / f"{name}.bin").open("wb"), (folder / f"{name}.offsets").open("wb")
            offsets.write(np.zeros(1, dtype=np.int64).tobytes())
            self._files[name] = tokens, offsets
        self.notes: dict[str, int] = {}

    def extend(self, name: str, rows: Sequence[Sequence[int]]) -> None:
        """Add rows to a column."""
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        n_tokens = int(lengths.sum())
        ids = np.fromiter(chain.from_iterable(rows), dtype=self._dtypes[name], count=n_tokens)
        tokens, offsets = self._files[name]
        tokens.write(ids.tobytes())
        offsets.write((self._ends[name] + np.cumsum(lengths)).tobytes())
        self._ends[name] += n_tokens
        self._n_rows[name] += len(rows)

    def count(self, note: str, number: int = 1) -> None:
        self.notes[note] = self.notes.get(note, 0) + number

    def n_rows(self, name: str) -> int:
        return self._n_rows[name]

    def close(self) -> Index:
        for tokens, offsets in self._files.values():
            tokens.close()
            offsets.close()
        columns = {
            name: Column(dtype, self._n_rows[name], self._ends[name]) for name, dtype in self._dtypes.items()
        }
        return Index(format=FORMAT, columns=columns, notes=self.notes)


@contextmanager
def written(folder: Path, columns: dict[str, str]) -> Iterator[StoreWriter]:
    """A writer whose folder is there, whole, when the block has ended; nothing is if it fails.

    Raises:
        CheckpointError: (a ValueError) the place cannot be written.
    """
    with committed(folder, manifest=False) as temporary:
        writer = StoreWriter(temporary, columns)
        try:
            yield writer
        finally:
            index = writer.close()
        (temporary / INDEX).write_bytes(msgspec.json.encode(index) + b"\n")


def id_type(vocab_size: int) -> str:
    """The smallest type that holds every id."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def _map(path: Path, dtype: str, count: int) -> np.ndarray:
    if count == 0:  # an empty file cannot be mapped
        return np.zeros(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r", shape=(count,))
