"""The files of a corpus, and reading text line by line: plain or gzip, strictly UTF-8. No torch."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tfm.train.dataset_folder import arrow_files, is_dataset


class Meter:
    """How much of some files has been read, in bytes as they lie on the disk."""

    def __init__(self, paths: Sequence[Path | str]) -> None:
        self.total = sum(file.stat().st_size for path in paths for file in files_of(path))
        self.done = 0

    def count(self, n_bytes: int) -> None:
        self.done += n_bytes


def iter_lines(path: Path | str, meter: Meter | None = None) -> Iterator[str]:
    """The lines of a file without their ends; only a newline ends a line (U+2028 is text).

    ``path.gz`` is read where ``path`` is absent. A byte order mark and carriage returns before a
    newline are dropped. ``meter`` is kept up to date.

    Raises:
        ValueError: the file cannot be read, or is not UTF-8; file and line are named.
    """
    path = find_file(path)
    number = 0
    at = 0
    try:
        with open(path, "rb") as packed, gzip.open(packed) if path.suffix == ".gz" else packed as file:
            for number, raw in enumerate(file, 1):
                if meter:
                    meter.done += packed.tell() - at
                    at = packed.tell()
                raw = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
                yield raw.removesuffix(b"\n").removesuffix(b"\r").decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}, line {number}: not UTF-8 (byte {error.object[error.start]:#04x}); convert it first"
        ) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: not a whole gzip file after line {number} ({error})") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from None


def read_lines(path: Path | str) -> list[str]:
    """All lines of a file; see ``iter_lines``."""
    return list(iter_lines(path))


def read_parallel(source: Path | str, target: Path | str) -> list[tuple[str, str]]:
    """Line n of one file with line n of the other.

    Raises:
        ValueError: the files do not have as many lines; both are named with their counts.
    """
    sources, targets = read_lines(source), read_lines(target)
    check_parallel(source, len(sources), target, len(targets))
    return list(zip(sources, targets, strict=True))


def check_parallel(source: Path | str, n_source: int, target: Path | str, n_target: int) -> None:
    """Raise ValueError unless both files have as many lines."""
    if n_source != n_target:
        raise ValueError(
            f"{source} has {n_source:,} lines but {target} has {n_target:,}; "
            "line n of one must translate line n of the other"
        )


def find_file(path: Path | str) -> Path:
    """``path`` itself, or ``path.gz`` where only that exists. Raises ValueError where neither does."""
    path = Path(path).expanduser()
    packed = path.with_name(path.name + ".gz")
    if path.is_file() or path.is_fifo() or path.is_char_device():
        return path
    if packed.is_file():
        return packed
    if is_dataset(path):
        raise ValueError(
            f'{path} is a dataset folder, whose rows are read with format = "jsonl" or "dialogue"'
        )
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file")
    raise ValueError(f"no file {path}")


def find_corpus(path: Path | str) -> Path:
    """As :func:`find_file`, but a dataset folder will do as well.

    Raises:
        ValueError: there is neither.
    """
    folder = Path(path).expanduser()
    return folder if is_dataset(folder) else find_file(path)


def files_of(path: Path | str) -> list[Path]:
    """The files that hold a corpus: one, or those of a dataset folder."""
    found = find_corpus(path)
    return arrow_files(found) if found.is_dir() else [found]
