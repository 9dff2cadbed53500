"""The run directory: all that anyone needs to watch, steer or resume a run. No torch.

    runs/<id>/config.toml          the resolved config, data paths absolute
              events.jsonl         EventLog writes it (one writer), EventReader follows it
              control/<id>.json    ControlInbox: commands to the trainer, by atomic rename
              run.lock, owner.json flock held by the trainer, and who that is
              log.txt, step-*/     output of the trainer; committed checkpoints

The lock alone says whether a run is alive: the kernel drops it with the process, however that dies,
and it is not fooled by a process id that was given out again.
"""

from __future__ import annotations

import difflib
import errno
import fcntl
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec
import psutil

from tfm.core import run_checkpoints
from tfm.core.catalog import runs_home
from tfm.core.engine.protocol import RunInfo
from tfm.train.files import write_atomically
from tfm.train.history import History, history_of

State = Literal["running", "paused", "finished", "stopped", "failed", "lost"]

_LOCK_PATIENCE = 0.4  # seconds; longer than anybody looks at a lock, far shorter than anybody trains
_NAME_PATIENCE = 5.0  # seconds; the owner has the lock but has not written its name yet
_STARTING = 60.0  # seconds that a new run may take to its first sign of life


class RunLocked(ValueError):
    """Somebody trains in this run directory already; the message names them."""


# --------------------------------------------------------------------------- who owns a run
class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """The process that trains: a pid alone proves nothing, so boot and start time go with it."""

    host: str
    boot: str
    pid: int
    started: float  # seconds since the epoch

    @classmethod
    def this_process(cls) -> Owner:
        me = psutil.Process()
        return cls(host=socket.gethostname(), boot=_boot_id(), pid=me.pid, started=me.create_time())

    def alive(self) -> bool | None:
        """Whether that very process still runs; None where it ran on another machine."""
        if self.host != socket.gethostname():
            return None
        if self.boot != _boot_id():
            return False
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 2
            return bool(same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux: the boot time, whole seconds
        return str(int(psutil.boot_time()))


# --------------------------------------------------------------------------- the directory
class RunDir:
    """One run's folder. Make one with ``RunDir.create`` or ``RunDir.open``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name
        self.config_path = path / "config.toml"
        self.events_path = path / "events.jsonl"
        self.control_path = path / "control"
        self.log_path = path / "log.txt"
        self.lock_path = path / "run.lock"
        self.owner_path = path / "owner.json"

    @classmethod
    def create(cls, config_toml_text: str, name: str, home: Path | None = None) -> RunDir:
        """A new directory ``<home>/<name>-<month day>-<hour minute>``, private to the user.

        Raises:
            ValueError: the name is no plain folder name, or the folder cannot be written.
        """
        if not name or "/" in name or "\0" in name or name.startswith("."):
            raise ValueError(f"a run's name must be a plain folder name, not {name!r}")
        home = (home or runs_home()).absolute()
        stem = f"{name}-{time.strftime('%m%d-%H%M')}"
        try:
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
            run = cls(_new_folder(home, stem))
            run.control_path.mkdir(mode=0o700)
            write_atomically(run.config_path, config_toml_text.encode())
        except OSError as error:
            raise ValueError(
                f"cannot create a run in {home}: {error.strerror}; set TFM_HOME to a folder you can write"
            ) from None
        return run

    @classmethod
    def open(cls, run: str | Path, home: Path | None = None) -> RunDir:
        """The run of that id under ``home``, or at that path.

        Raises:
            ValueError: there is none; near misses are named.
        """
        home = (home or runs_home()).absolute()
        text = str(run)
        candidates = [Path(text).expanduser().absolute()]
        if text and text not in (".", "..") and "/" not in text:
            candidates.insert(0, home / text)
        for path in candidates:
            if (path / "config.toml").is_file():
                return cls(path)
        known = [folder.name for folder in _run_folders(home)]
        beginnings = {name: name[: len(text)] for name in known}  # "en-ed" is near en-de-1122-1503
        close = difflib.get_close_matches(text, [*known, *beginnings.values()], n=5, cutoff=0.6)
        near = [name for name in known if text and (name in close or beginnings[name] in close)][-3:]
        hint = f"; did you mean {' or '.join(near)}?" if near else f" in {home}"
        raise ValueError(f"no run {text!r}{hint}")

    # ------------------------------------------------------------------- checkpoints
    def checkpoint_path(self, step: int) -> Path:
        return self.path / f"step-{step:06d}"

    def checkpoints(self) -> list[Path]:
        """Committed checkpoints (those with a manifest), by step."""
        return run_checkpoints.checkpoints(self.path)

    def sweep(self) -> list[str]:
        """Remove what a killed trainer left half written; the caller holds the lock. Returns the names."""
        left = [entry for entry in self.path.iterdir() if entry.name.startswith(".tmp-")]
        for entry in left:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)
        return [entry.name for entry in left]

    # ------------------------------------------------------------------- ownership
    @contextmanager
    def lock(self) -> Iterator[RunDir]:
        """Own this run until the block ends or the process dies.

        Raises:
            RunLocked: somebody else does; the message says who.
        """
        fd = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + _LOCK_PATIENCE
            while not _try_flock(fd, fcntl.LOCK_EX):
                named = self.owner() is not None
                if time.monotonic() > deadline + (0.0 if named else _NAME_PATIENCE):
                    raise RunLocked(self.locked_message())
                time.sleep(0.02)  # perhaps only somebody in is_locked
            write_atomically(self.owner_path, msgspec.json.encode(Owner.this_process()) + b"\n")
            try:
                yield self
            finally:
                self.owner_path.unlink(missing_ok=True)
        finally:
            os.close(fd)

    def is_locked(self) -> bool:
        try:
            fd = os.open(self.lock_path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return not _try_flock(fd, fcntl.LOCK_SH)
        finally:
            os.close(fd)

    def owner(self) -> Owner | None:
        """Who holds the lock, or held it when it died; None where nobody does or it was released."""
        try:
            return msgspec.json.decode(self.owner_path.read_bytes(), type=Owner)
        except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
            return None

    def locked_message(self) -> str:
        """Why the lock cannot be had, for a person."""
        owner = self.owner()
        if owner is not None and owner.alive() is False:
            return (
                f"run {self.id}: its trainer {owner} is dead but a process that it started still holds "
                f"{self.lock_path}; end that process first"
            )
        return f"run {self.id} is already being trained by {owner or 'another process'}; stop or attach to it"

    # ------------------------------------------------------------------- what it is doing
    def state(self) -> State:
        return self.info().state

    def info(self) -> RunInfo:
        """What a list of runs shows; read from the lock, and from what is new in the event log."""
        locked = self.is_locked()  # before the log: a run that ends in between is then still "running"
        history = history_of(self.events_path)
        owner = self.owner()
        return RunInfo(
            run=self.id,
            path=str(self.path),
            state=self._state(locked, history),
            step=history.step,
            total_steps=history.total_steps,
            started=history.started,
            owner=str(owner) if owner else "",
            best=history.best,
        )

    def _state(self, locked: bool, history: History) -> State:
        if locked:
            return "paused" if history.paused else "running"
        if history.ended == "failed":
            return "failed"
        if history.ended == "stopped":
            return "stopped"
        if history.ended is not None:
            return "finished"
        never_owned = not self.lock_path.exists()
        young = time.time() - self.path.stat().st_mtime < _STARTING
        return "running" if never_owned and young else "lost"


def list_runs(home: Path | None = None) -> list[RunInfo]:
    """Every run under ``home``, newest first. A folder that is no run, or cannot be read, is left out."""
    infos = []
    for folder in _run_folders((home or runs_home()).absolute()):
        try:
            infos.append((folder.stat().st_ctime, RunDir(folder).info()))
        except OSError:  # removed while we looked, or not ours
            continue
    return [info for _, info in sorted(infos, key=lambda pair: (-(pair[1].started or pair[0]), pair[1].run))]


def _run_folders(home: Path) -> list[Path]:
    try:
        return sorted(folder for folder in home.iterdir() if (folder / "config.toml").is_file())
    except OSError:
        return []


def _new_folder(home: Path, stem: str) -> Path:
    number = 1
    while True:
        path = home / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir(mode=0o700)
            return path
        except FileExistsError:
            number += 1


def _try_flock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
        return True
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN):
            return False
        raise
