"""A progress bar on stderr, drawn only where stderr is a terminal."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType

from tfm.tui.commands.output import human_seconds

WIDTH = 24
REDRAW = 0.1  # seconds between two drawings


class Progress:
    """``with Progress("lines") as bar: bar.show(done, total)``; a total of None shows a count."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.on = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._start = time.monotonic()
        self._drawn = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def show(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if not self.on or (now - self._drawn < REDRAW and done != total):
            return
        self._drawn = now
        rate = done / max(now - self._start, 1e-6)
        tail = f"{done:,} {self.unit} · {rate:.1f}/s"
        if total:
            filled = WIDTH * done // total
            left = human_seconds((total - done) / rate) if done else "-:--:--"
            bar = "█" * filled + "░" * (WIDTH - filled)
            tail = f"{bar} {done:,}/{total:,} {self.unit} · {rate:.1f}/s · {left} left"
        self._write("\r\x1b[K" + tail)

    def clear(self) -> None:
        """Take the bar off the screen, so that what is printed next stands alone."""
        if self.on and self._drawn:
            self._write("\r\x1b[K")
            self._drawn = 0.0

    def _write(self, text: str) -> None:
        encoding = sys.stderr.encoding or "utf-8"
        sys.stderr.write(text.encode(encoding, "replace").decode(encoding))
        sys.stderr.flush()
