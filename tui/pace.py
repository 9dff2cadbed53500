"""Pace: how often streamed text may be painted over this line, told by the terminal's own answers.

After a frame, now and then, the terminal is asked where its cursor is (``CSI 6n``, which all of them
answer). The time until its answer holds all that a frame waits for: our writer, the line, whatever is
queued in it, the terminal.
Text is painted at most twice in a round trip, as mosh does: a frame more would only queue behind the others,
and what is typed would queue behind it. Nothing is asked where nothing is painted.
"""

from __future__ import annotations

import os
import re
import select
import time

QUESTION = "\x1b[6n"
EVERY = 0.5  # seconds between questions while something is painted
DEFAULT_FPS = 60
SLOWEST = 1.0  # seconds between frames on the worst of lines
REST = 4  # a frame may take one part in so many of the time
SLOW = 0.1  # seconds between frames from which on a person is told of it


class Pace:
    """Times are seconds of one monotonic clock."""

    def __init__(self, fastest: float = 1 / DEFAULT_FPS) -> None:
        """``fastest``: seconds between frames on a line that costs nothing (``TEXTUAL_FPS``)."""
        self.fastest = fastest
        self.round_trip: float | None = None  # smoothed; None: no answer came yet
        self._asked: float | None = None  # when, if the answer is still to come
        self._last = -EVERY
        self._cost = 0.0  # seconds that a frame takes, smoothed

    def wants_to_ask(self, now: float) -> bool:
        """Is it time for a question?"""
        if self._asked is not None:
            return False  # also where nobody ever answers
        return now - self._last >= EVERY

    def ask(self, now: float) -> None:
        self._asked = self._last = now

    def answer(self, now: float) -> None:
        """The terminal answered. A line that became slow counts at once, one that became fast by and by."""
        if self._asked is None:
            return
        took, self._asked = max(0.0, now - self._asked), None
        if self.round_trip is None or took > self.round_trip:
            self.round_trip = took
        else:
            self.round_trip += (took - self.round_trip) / 4

    def painted(self, seconds: float) -> None:
        """What a frame took us. On a machine that others use it is many times what it is on a quiet one."""
        self._cost += (seconds - self._cost) / 4

    def interval(self, now: float) -> float:
        """Seconds between two frames. An answer that is overdue counts as long as it is waited for, and
        painting leaves most of the time to keys and to what comes in."""
        wanted = max(self.fastest, REST * self._cost)
        if self.round_trip is not None:
            waiting = now - self._asked if self._asked is not None else 0.0
            wanted = max(wanted, max(self.round_trip, waiting) / 2)
        return min(wanted, max(SLOWEST, self.fastest))

    def answer_in(self, now: float) -> float:
        """Seconds until the answer that is still to come should be here; 0: none is."""
        if self._asked is None or self.round_trip is None:
            return 0.0
        return max(0.0, self._asked + self.round_trip - now)

    def slow(self) -> str:
        """What to tell a person of a slow line; nothing where it is fast."""
        line = min((self.round_trip or 0.0) / 2, SLOWEST)
        return f"slow line: {1 / line:.0f} fps" if line >= max(SLOW, 2 * self.fastest) else ""


def round_trip(read_from: int, write_to: int, patience: float = 1.0) -> float | None:
    """Ask a terminal once, outside the app: seconds until it answered, or None.

    Its line discipline is changed while we wait, so that the answer is neither echoed nor kept until Enter.
    """
    import termios
    import tty

    before = termios.tcgetattr(read_from)
    try:
        tty.setcbreak(read_from, termios.TCSANOW)
        began, answer = time.monotonic(), b""
        os.write(write_to, QUESTION.encode())
        while (left := began + patience - time.monotonic()) > 0:
            if select.select([read_from], [], [], left)[0]:
                answer += os.read(read_from, 64)
                if re.search(rb"\x1b\[\d+;\d+R", answer):
                    return time.monotonic() - began
        return None
    finally:
        termios.tcsetattr(read_from, termios.TCSANOW, before)
