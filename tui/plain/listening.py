"""What the dialogue hears: lines of stdin, read in a thread of its own, so that text can stream meanwhile."""

from __future__ import annotations

import asyncio
import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tfm.tui.commands.lines import LineReader


class Ear:
    """Lines in their order; None is the end of them. A line that is no text is a ValueError."""

    def __init__(self, *, by_hand: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[str | ValueError | None] = asyncio.Queue()
        self._free = threading.Event()  # may the thread read?
        self._free.set()
        self._still = threading.Event()  # it does not
        self._nudged, self._nudge = os.pipe()
        threading.Thread(target=self._read_terminal if by_hand else self._read_pipe, daemon=True).start()

    async def line(self) -> str | None:
        """The next line. Raises ValueError where it is none; there may be more after it."""
        line = await self._lines.get()
        if isinstance(line, ValueError):
            raise line
        return line

    @contextmanager
    def covered(self) -> Iterator[None]:
        """Another program asks on this terminal: what is typed is for it."""
        self._still.clear()
        self._free.clear()
        os.write(self._nudge, b".")
        self._still.wait()
        try:
            yield
        finally:
            self._free.set()

    def _read_terminal(self) -> None:
        tail = b""
        while True:
            ready, _, _ = select.select([0, self._nudged], [], [])
            if self._nudged in ready:
                os.read(self._nudged, 1)
                self._still.set()
                self._free.wait()
                continue
            try:
                data = os.read(0, 1 << 16)
            except OSError:  # the terminal is gone
                data = b""
            if not data and tail:  # Ctrl+D within a line ends it
                data = b"\n"
            elif not data:
                return self._hear(None)
            *whole, tail = (tail + data).split(b"\n")
            for line in whole:
                try:
                    self._hear(line.decode("utf-8").rstrip("\r"))
                except UnicodeDecodeError:
                    self._hear(ValueError("That was not valid UTF-8; type it again."))

    def _read_pipe(self) -> None:
        reader = LineReader(0)
        while True:
            try:
                for chunk in reader.chunks(1):
                    for line in chunk:
                        self._hear(line.text)
                return self._hear(None)
            except ValueError as error:  # the lines after it can still be read, but for one without an end
                self._hear(error)
                if "longer than" in str(error):
                    return self._hear(None)
            except OSError:
                return self._hear(None)

    def _hear(self, line: str | ValueError | None) -> None:
        self._loop.call_soon_threadsafe(self._lines.put_nowait, line)
