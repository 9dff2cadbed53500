"""Folders that Hugging Face ``datasets`` wrote with ``save_to_disk``: rows in Arrow files. No torch.

    state.json                     names the Arrow files, in their order
    data-00000-of-00002.arrow      a stream of record batches
    dataset_dict.json              of several splits: their names; each is a folder as above

The files are memory-mapped and read a batch of rows at a time, so a dataset need not fit into memory.
pyarrow reads them (``pip install tfm-tui[datasets]``); the ``datasets`` package itself is not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

STATE, SPLITS = "state.json", "dataset_dict.json"
_ROWS = 1000  # turned into Python objects at a time


class _File(msgspec.Struct):
    filename: str


class _State(msgspec.Struct):
    data_files: list[_File] = msgspec.field(name="_data_files")
    indices_files: list[_File] | None = msgspec.field(name="_indices_data_files", default=None)


class _Splits(msgspec.Struct):
    splits: list[str]


def is_dataset(path: Path) -> bool:
    return (path / STATE).is_file() or (path / SPLITS).is_file()


def arrow_files(folder: Path) -> list[Path]:
    """The files that hold the rows of a dataset, in their order.

    Raises:
        ValueError: it has several splits and none was named, or it is no whole dataset.
    """
    if not (folder / STATE).is_file():
        names = _read(folder / SPLITS, _Splits).splits
        raise ValueError(
            f"{folder} has the splits {', '.join(names)}; name one of them, such as {folder / names[0]}"
            if names
            else f"{folder} is a dataset without a split"
        )
    state = _read(folder / STATE, _State)
    if state.indices_files:
        raise ValueError(f"{folder} is a selection of rows; write it out with flatten_indices() first")
    files = [folder / file.filename for file in state.data_files]
    for file in files:
        if file.parent != folder or not file.is_file():
            raise ValueError(f"{folder} is no whole dataset: {file.name} is missing")
    return files


def iter_rows(folder: Path, count: Callable[[int], None]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each row stands, for a person, and the row; ``count`` is told the bytes that were read.

    Raises:
        ValueError: pyarrow is not installed, or a file is damaged.
    """
    try:
        import pyarrow as arrow
    except ImportError:
        raise ValueError(
            f"{folder} is a dataset of Arrow files, which pyarrow reads: pip install 'tfm-tui[datasets]'"
        ) from None
    number = 0
    for path in arrow_files(folder):
        try:
            with arrow.memory_map(str(path)) as file, arrow.ipc.open_stream(file) as stream:
                at = 0
                for batch in stream:
                    for first in range(0, batch.num_rows, _ROWS):
                        for row in batch.slice(first, _ROWS).to_pylist():
                            number += 1
                            yield f"{folder}, row {number}", row
                    count(file.tell() - at)
                    at = file.tell()
        except (arrow.ArrowException, OSError) as error:
            raise ValueError(f"{path} is damaged: {str(error).splitlines()[0]}") from None


def _read(path: Path, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError) as error:
        raise ValueError(f"{path}: {error}") from None
