"""The event log: one JSON line an event, one writer, any number of readers. No torch."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from tfm.train import events
from tfm.train.events import TrainEvent

if TYPE_CHECKING:
    from tfm.train.run_dir import RunDir

AnyEvent = TypeVar("AnyEvent", bound=TrainEvent)

_READ_BYTES = 1 << 22  # of the event log, a poll


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
