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
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
import platformdirs
import psutil

from tfm.core.engine.protocol import RunInfo
from tfm.train import events
from tfm.train.events import CommandDone, Evaluated, RunEnded, RunStarted, Step, TrainEvent

State = Literal["running", "paused", "finished", "stopped", "failed", "lost"]
AnyEvent = TypeVar("AnyEvent", bound=TrainEvent)

_STEP_FOLDER = re.compile(r"step-(\d+)")
_COMMAND_FILE = re.compile(r"[0-9A-Z]{26}\.json")
_MAX_COMMAND_BYTES = 1 << 20
_READ_BYTES = 1 << 22  # of the event log, a poll
_LOCK_PATIENCE = 0.4  # seconds; longer than anybody looks at a lock, far shorter than anybody trains
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
def runs_home() -> Path:
    """Where runs live: ``$TFM_HOME/runs``, else ``runs`` in the platform's user data folder."""
    home = os.environ.get("TFM_HOME")
    return (Path(home).expanduser() if home else platformdirs.user_data_path("tfm-tui", False)) / "runs"


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
        found = []
        for folder in self.path.iterdir():
            match = _STEP_FOLDER.fullmatch(folder.name)
            if match and (folder / "MANIFEST.json").is_file():
                found.append((int(match[1]), folder))
        return [folder for _, folder in sorted(found)]

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
                if time.monotonic() > deadline:
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
        """What a list of runs shows; read from the lock and the whole event log."""
        locked = self.is_locked()  # before the log: a run that ends in between is then still "running"
        history = _History()
        reader = EventReader(self.events_path)
        while lines := reader.poll():
            for line in lines:
                history.add(events.decode(line))
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

    def _state(self, locked: bool, history: _History) -> State:
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


class _History:
    """What the events so far amount to."""

    def __init__(self) -> None:
        self.step = 0
        self.total_steps = 0
        self.started = 0.0
        self.paused = False
        self.ended: str | None = None
        self.best: dict[str, float] = {}

    def add(self, event: TrainEvent) -> None:
        match event:
            case RunStarted(total_steps=total, time=at):
                self.total_steps, self.paused, self.ended = total, False, None
                self.started = self.started or at
                self.step = event.resumed_from or 0
            case Step(step=step):
                self.step = step
            case Evaluated():
                self._keep("loss", event.loss, min)
                self._keep("perplexity", event.perplexity, min)
                self._keep("accuracy", event.accuracy, max)
                self._keep("bleu", event.bleu, max)
                self._keep("chrf", event.chrf, max)
            case CommandDone(command="pause" | "resume" as command, ok=True):
                self.paused = command == "pause"
            case RunEnded(reason=reason, step=step):
                self.ended, self.step = reason, step

    def _keep(self, name: str, value: float | None, better: Any) -> None:
        if value is not None:
            self.best[name] = better(self.best.get(name, value), value)


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


def write_atomically(path: Path, data: bytes) -> None:
    """The file is either what it was or all of ``data``, also after a kill or a power cut."""
    temporary = path.with_name(f".tmp-{path.name}-{secrets.token_hex(4)}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


# --------------------------------------------------------------------------- the event log
class EventLog:
    """Appends events; one writer a run (the holder of its lock). Numbers go on where the file ends."""

    def __init__(self, run: RunDir) -> None:
        self._fd = os.open(run.events_path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = os.fstat(self._fd).st_size
        self._torn = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"
        self.n_before = self._next_seq = _last_seq(run.events_path) + 1

    def append(self, event: AnyEvent) -> AnyEvent:
        """Write one line with one system call; returns the event with its number and time.

        Raises:
            OSError: the disk is full or gone. What is in the log stays readable.
        """
        stamped = msgspec.structs.replace(event, seq=self._next_seq, time=time.time())
        # After a torn line (a kill or a full disk) ours begins anew, so only the torn one is lost.
        line = b"\n" * self._torn + events.encode(stamped)
        self._torn = True
        if os.write(self._fd, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._torn = False
        self._next_seq += 1
        return stamped

    def close(self) -> None:
        os.close(self._fd)


def _last_seq(path: Path) -> int:
    last = -1
    reader = EventReader(path)
    while lines := reader.poll():
        last = max(last, *(events.decode(line).seq for line in lines))
    return last


class EventReader:
    """Follows an event log from its beginning; ``bad_lines`` counts those that are no events."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bad_lines = 0
        self._offset = 0
        self._partial = b""

    def poll(self) -> list[str]:
        """Whole new lines that hold an event, at most some megabytes of them; empty where nothing is new.

        A last line without its newline waits for the next call. A log that is not there yet is empty.
        """
        lines: list[str] = []
        while not lines:
            chunk = self._read()
            if not chunk:
                break
            *whole, self._partial = (self._partial + chunk).split(b"\n")
            for raw in whole:
                try:
                    events.decode(raw)
                    lines.append(raw.decode())
                except (msgspec.DecodeError, UnicodeDecodeError):
                    self.bad_lines += bool(raw.strip())
        return lines

    def _read(self) -> bytes:
        try:
            with open(self.path, "rb") as file:
                if os.fstat(file.fileno()).st_size < self._offset:  # replaced by a shorter one
                    self._offset, self._partial = 0, b""
                file.seek(self._offset)
                chunk = file.read(_READ_BYTES)
        except FileNotFoundError:
            return b""
        self._offset += len(chunk)
        return chunk


# --------------------------------------------------------------------------- the control inbox
class Command(NamedTuple):
    id: str
    command: str  # one of tfm.train.events.COMMANDS
    args: dict[str, Any]


class _CommandFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    command: str
    args: dict[str, Any] = {}


class ControlInbox:
    """Commands to a trainer: anyone may send, the trainer takes them in the order they were sent."""

    def __init__(self, run: RunDir) -> None:
        self.path = run.control_path
        self.problems: list[str] = []  # of the latest take: a sentence for each file that was no command

    def send(self, command: str, args: dict[str, Any] | None = None) -> str:
        """Put one command into the inbox; returns its id, which the acknowledgement will carry.

        Raises:
            ValueError: no such command, or the inbox cannot be written.
        """
        if command not in events.COMMANDS:
            raise ValueError(f"no command {command!r}: choose from {', '.join(events.COMMANDS)}")
        command_id = _sortable_id()
        data = msgspec.json.encode(_CommandFile(command=command, args=args or {}))
        try:
            self.path.mkdir(mode=0o700, exist_ok=True)
            write_atomically(self.path / f"{command_id}.json", data)
        except OSError as error:
            raise ValueError(f"cannot write {self.path}: {error.strerror}") from None
        return command_id

    def take(self) -> list[Command]:
        """Remove and return all commands in the order they were sent.

        A file that is no command is set aside in ``control/rejected`` and named in ``problems``.
        """
        commands: list[Command] = []
        self.problems = []
        try:
            names = sorted(name for name in os.listdir(self.path) if name.endswith(".json"))
        except FileNotFoundError:
            return []
        for name in names:
            path = self.path / name
            try:
                message = self._read(path)
            except (ValueError, OSError) as error:
                rejected = self.path / "rejected"
                rejected.mkdir(mode=0o700, exist_ok=True)
                os.replace(path, rejected / name)
                self.problems.append(f"{name} in the control inbox is no command and was set aside: {error}")
            else:
                path.unlink()
                commands.append(Command(name.removesuffix(".json"), message.command, message.args))
        return commands

    def _read(self, path: Path) -> _CommandFile:
        if not _COMMAND_FILE.fullmatch(path.name):
            raise ValueError("its name is no command id")
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):  # a FIFO would hang the trainer
                raise ValueError("it is no plain file")
            data = file.read(_MAX_COMMAND_BYTES + 1)
        if len(data) > _MAX_COMMAND_BYTES:
            raise ValueError("it is larger than 1 MiB")
        message = msgspec.json.decode(data, type=_CommandFile)
        if message.command not in events.COMMANDS:
            raise ValueError(f"no command {message.command!r}")
        return message


def _sortable_id() -> str:
    """26 characters that sort by time, to the nanosecond, with 60 random bits behind."""
    number = time.time_ns() << 60 | secrets.randbits(60)
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    digits = []
    for _ in range(26):
        number, digit = divmod(number, 32)
        digits.append(alphabet[digit])
    return "".join(reversed(digits))
