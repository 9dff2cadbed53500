"""Saved work on disk: written whole and atomically as it grows, found again at the next start.

One folder a kind of work (conversations, translations, filled texts), one JSON file each, readable by
its owner alone. A file that another window of the app has written meanwhile is left as it is: this
window's work goes on in a file of its own. A file that cannot be read is listed with the reason and
left where it is.
"""

from __future__ import annotations

import os
import secrets
import time
from itertools import chain
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

import msgspec

from tfm.core.catalog import checkpoint_home
from tfm.train.files import write_atomically
from tfm.tui.encoding import pieces, snapshot

MAX_BYTES = 64 << 20  # of a file that is opened
LISTED = 200  # works that a list shows


class Work(Protocol):
    """What a kind of work must be to be kept: a msgspec.Struct with a key and something to say of itself."""

    key: str  # its file's name
    name: str  # given by a person

    @property
    def title(self) -> str:
        """What a list calls it: its name, or how it begins."""

    @property
    def size(self) -> int:
        """Turns, or texts."""

    @property
    def empty(self) -> bool:
        """Is it not worth a file?"""


class Head(Protocol):
    """As much of a file as a list needs."""

    @property
    def title(self) -> str: ...

    @property
    def size(self) -> int: ...


W = TypeVar("W", bound=Work)


class Listed(NamedTuple):
    """A saved work as a list shows it."""

    key: str
    title: str
    changed: float  # seconds since the epoch
    size: int  # turns, or texts
    problem: str = ""  # why it cannot be opened


class Store(Generic[W]):
    """The folder of one kind of work. ``head`` is a type that skips what a list does not show."""

    def __init__(self, kind: type[W], head: type[Head], folder: str | Path) -> None:
        """``folder``: a path, or the name of a folder in ``$TFM_HOME``."""
        self.kind, self.head = kind, head
        self.folder = folder if isinstance(folder, Path) else checkpoint_home() / folder
        self._written: dict[str, int] = {}  # by key: the file's time of change as we left or found it

    def path(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def new_key(self) -> str:
        return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"

    def save(self, work: W, image: W | None = None) -> None:
        """Write it; where its file is new or not ours any more, it gets another key first.

        ``image``: a snapshot of it, where another thread may change it meanwhile. It is used up.

        Raises:
            OSError: it cannot be written.
        """
        if not work.key or self._changed_elsewhere(work.key):
            work.key = self.new_key()
        image = snapshot(work) if image is None else image
        image.key = work.key
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.path(work.key)
        write_atomically(path, chain(pieces(image), [b"\n"]))
        self._written[work.key] = path.stat().st_mtime_ns

    def open(self, key: str) -> W:
        """A saved work.

        Raises:
            ValueError: there is none, or it cannot be read; one sentence.
        """
        path = self.path(key)
        try:
            stamp = path.stat().st_mtime_ns
            work = msgspec.json.decode(_read(path), type=self.kind)
        except FileNotFoundError:
            raise ValueError(f"there is no {path}") from None
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is damaged and was left as it is: {error}") from None
        work.key = key
        self._written[key] = stamp
        return work

    def rename(self, key: str, name: str) -> None:
        """Call a saved work something. Raises as :meth:`open` and :meth:`save`."""
        work = self.open(key)
        work.name = name.strip()
        self.save(work)

    def delete(self, key: str) -> None:
        """Remove a saved work for good. Raises OSError; one that is gone already is no error."""
        self.path(key).unlink(missing_ok=True)
        self._written.pop(key, None)

    def keys(self) -> list[str]:
        """The keys of what is there, what was changed last first."""
        return [path.stem for _, path in self._found()]

    def listed(self) -> list[Listed]:
        """What is there as a list shows it, what was changed last first."""
        return [self._listed(path, changed) for changed, path in self._found()[:LISTED]]

    def reopened(self) -> tuple[W | None, str]:
        """The work that was changed last and can be read, and why the newest file cannot, where it cannot."""
        problem = ""
        for place, key in enumerate(self.keys()):
            try:
                return self.open(key), problem
            except ValueError as error:
                problem = problem if place else str(error)
        return None, problem

    def _found(self) -> list[tuple[float, Path]]:
        try:
            files = [entry for entry in os.scandir(self.folder) if entry.name.endswith(".json")]
            found = [(file.stat().st_mtime, Path(file.path)) for file in files if file.name[0] != "."]
        except OSError:  # no folder yet, or not ours to read: then it holds nothing for us
            return []
        return sorted(found, reverse=True)

    def _listed(self, path: Path, changed: float) -> Listed:
        try:
            head = msgspec.json.decode(_read(path), type=self.head)
            return Listed(path.stem, head.title, changed, head.size)
        except (OSError, ValueError) as error:
            return Listed(path.stem, "", changed, 0, str(error))

    def _changed_elsewhere(self, key: str) -> bool:
        try:
            return self.path(key).stat().st_mtime_ns != self._written.get(key)
        except FileNotFoundError:
            return False


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise msgspec.DecodeError(f"it is larger than {MAX_BYTES:,} bytes")
    return data
