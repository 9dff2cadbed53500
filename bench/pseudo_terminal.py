"""One process in a pseudo-terminal, timed from outside: what a person at the keyboard would wait for."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import tempfile
import termios
import time
from collections.abc import Callable, Sequence

import psutil
import pyte

COLUMNS, ROWS = 80, 24
SYNC_QUERY, SYNC_ANSWER = b"\x1b[?2026$p", b"\x1b[?2026;2$y"
CURSOR_QUERY, CURSOR_ANSWER = b"\x1b[6n", b"\x1b[1;1R"


class PseudoTerminal:
    """Reads all that the process writes, and answers its questions as a terminal does.

    ``synchronized``: say that frames may be bracketed (mode 2026), as kitty, WezTerm and iTerm2 do; xterm and
    tmux up to 3.6 stay silent. ``answer_after``: seconds that every answer takes, as over a long line.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: dict[str, str] | None = None,
        *,
        synchronized: bool = False,
        answer_after: float = 0.0,
    ) -> None:
        self.output = bytearray()
        self._synchronized, self._answer_after = synchronized, answer_after
        self._due: list[tuple[float, bytes]] = []
        self._screen = pyte.Screen(COLUMNS, ROWS)
        self._feed = pyte.ByteStream(self._screen).feed
        self._fed = 0  # how much of the output is on that screen
        self._asked = 0  # how much of the output was searched for questions
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        variables = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        for name in ("NO_COLOR", "COLUMNS", "LINES"):
            variables.pop(name, None)
        variables.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program has its bytecode
        self._home = tempfile.TemporaryDirectory()  # nobody's sessions are opened, or added to
        variables["TFM_HOME"] = self._home.name
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env={**variables, **(environment or {})},
            start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self._usage = psutil.Process(self.process.pid)

    def __enter__(self) -> PseudoTerminal:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        end = time.perf_counter() + 5
        while self.process.poll() is None:
            self.read(0.05)
            if time.perf_counter() > end:
                self.process.kill()
                self.process.wait()
        os.close(self._master)
        self._home.cleanup()

    def read(self, seconds: float) -> bytes:
        """What comes within this time, or at once when there is something."""
        if self._due:
            seconds = min(seconds, max(0.0, self._due[0][0] - time.perf_counter()))
        data = b""
        if select.select([self._master], [], [], seconds)[0]:
            try:
                data = os.read(self._master, 1 << 16)
            except OSError:  # the process has gone
                time.sleep(0.01)
        self.output += data
        self._answer()
        return data

    def _answer(self) -> None:
        now = time.perf_counter()
        for query, answer in ((SYNC_QUERY, SYNC_ANSWER), (CURSOR_QUERY, CURSOR_ANSWER)):
            if query == SYNC_QUERY and not self._synchronized:
                continue
            found = self.output.count(query, max(0, self._asked - len(query) + 1))
            self._due += [(now + self._answer_after, answer)] * found
        self._asked = len(self.output)
        while self._due and self._due[0][0] <= now:
            os.write(self._master, self._due.pop(0)[1])

    def read_for(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            self.read(left)

    def send(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_until(self, seen: Callable[[], bool], what: str, seconds: float = 60.0) -> float:
        """When it was seen; a RuntimeError where it was not."""
        end = time.perf_counter() + seconds
        while not seen():
            if time.perf_counter() > end or self.process.poll() is not None:
                raise RuntimeError(
                    f"waited for {what} in vain; the last output: {bytes(self.output[-300:])!r}"
                )
            self.read(0.1)
        return time.perf_counter()

    def wait_for(self, text: str, seconds: float = 60.0) -> float:
        return self.wait_until(lambda: self.shows(text), repr(text), seconds)

    def shows(self, text: str) -> bool:
        """Is it on the screen? Only cells that change are sent, so a text need not come in one piece."""
        self._feed(bytes(self.output[self._fed :]))
        self._fed = len(self.output)
        return any(text in row for row in self._screen.display)

    def key_latency(self, character: str, patience: float = 5.0) -> float | None:
        """Seconds from a key to its character on the screen; None: it did not come."""
        after, mark = len(self.output), character.encode()
        began = time.perf_counter()
        self.send(character)
        while time.perf_counter() - began < patience:
            self.read(patience)
            if self.output.find(mark, after) >= 0:
                return time.perf_counter() - began
        return None

    def cpu_seconds(self) -> float:
        """Processor time of the process itself, its children not counted."""
        times = self._usage.cpu_times()
        return float(times.user + times.system)
