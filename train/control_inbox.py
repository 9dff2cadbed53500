"""The control inbox: commands to a trainer, each a file that appears by an atomic rename. No torch."""

from __future__ import annotations

import os
import re
import secrets
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from tfm.train import events
from tfm.train.files import write_atomically

if TYPE_CHECKING:
    from tfm.train.run_dir import RunDir

_COMMAND_FILE = re.compile(r"[0-9A-Z]{26}\.json")
_MAX_COMMAND_BYTES = 1 << 20


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
