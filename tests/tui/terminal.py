"""A real pseudo-terminal with a screen that can be read: what a person would see and type."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyte

KEYS = {
    "enter": b"\r", "escape": b"\x1b", "tab": b"\t", "left": b"\x1b[D", "right": b"\x1b[C", "up": b"\x1b[A",
    "down": b"\x1b[B", "ctrl+q": b"\x11", "ctrl+r": b"\x12", "ctrl+l": b"\x0c", "ctrl+p": b"\x10",
    "ctrl+o": b"\x0f", "f1": b"\x1bOP", "f5": b"\x1b[15~", "f9": b"\x1b[20~",
}  # fmt: skip
APP = (sys.executable, "-m", "tfm.tui.cli")


class Terminal:
    """One process in one pseudo-terminal."""

    def __init__(
        self,
        command: Sequence[str] = APP,
        *,
        columns: int = 80,
        rows: int = 24,
        cwd: Path | None = None,
        environment: dict[str, str] | None = None,
        answer_after: float | None = None,
    ) -> None:
        """``answer_after``: seconds that the answer to "where is the cursor" takes; None: there is none."""
        self.screen = pyte.Screen(columns, rows)
        self.raw = bytearray()
        self._stream = pyte.ByteStream(self.screen)
        self._answer_after = answer_after
        self._asked: list[float] = []  # when; those that have no answer yet
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        variables = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "PYTHONUTF8": "1"}
        for name in ("NO_COLOR", "COLUMNS", "LINES"):  # sizes are set for workers, and outrank the terminal
            variables.pop(name, None)
        self.modes_before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            env={**variables, **(environment or {})},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self._slave = slave

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        self.hang_up()

    def hang_up(self) -> None:
        """The terminal goes away, as when a connection drops."""
        for fd in (self._master, self._slave):
            if fd >= 0:
                os.close(fd)
        self._master = self._slave = -1

    def read(self, seconds: float = 0.05) -> None:
        """Take in what comes within this time."""
        if select.select([self._master], [], [], seconds)[0]:
            data = os.read(self._master, 1 << 16)
            self.raw += data
            self._stream.feed(data)
            self._asked += [time.monotonic()] * data.count(b"\x1b[6n")
        after = self._answer_after
        while after is not None and self._asked and time.monotonic() >= self._asked[0] + after:
            os.write(self._master, b"\x1b[1;1R")
            del self._asked[0]

    @property
    def text(self) -> str:
        return "\n".join(self.screen.display)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def press(self, *keys: str) -> None:
        for key in keys:
            os.write(self._master, KEYS.get(key) or key.encode())
            self.read(0.1)

    def wait_until(self, seen: Callable[[str], bool], what: str, seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not seen(self.text):
            if time.monotonic() > end:
                raise AssertionError(f"waited {seconds:.0f} s for {what}; the screen shows:\n{self.text}")
            if self.process.poll() is not None:
                self.read()
                raise AssertionError(f"the app ended while waiting for {what}:\n{self.text}")
            self.read()

    def wait_for(self, text: str, seconds: float = 60.0) -> None:
        self.wait_until(lambda screen: text in screen, repr(text), seconds)

    def wait_to_end(self, seconds: float = 10.0) -> int:
        """The exit status; what comes until then is read."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            if time.monotonic() > end:
                raise AssertionError(f"the app did not end within {seconds:.0f} s:\n{self.text}")
            self.read()
        self.read()
        return self.process.returncode

    def restored(self) -> bool:
        """Cooked mode again, the other screen left, the cursor shown, no mouse or paste reporting."""
        modes = termios.tcgetattr(self._slave)
        last = {mode: self.raw.rfind(b"\x1b[?" + mode) for mode in (b"1049h", b"25l", b"2004h", b"1003h")}
        off = {b"1049h": b"1049l", b"25l": b"25h", b"2004h": b"2004l", b"1003h": b"1003l"}
        undone = all(self.raw.rfind(b"\x1b[?" + off[mode]) > at for mode, at in last.items() if at >= 0)
        return bool(modes[3] == self.modes_before[3]) and undone
