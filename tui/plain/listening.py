"""What the dialogue hears: lines of stdin, read in a thread of its own, so that text can stream meanwhile."""

from __future__ import annotations

import asyncio
import threading

from tfm.tui.commands.lines import LineReader


class Ear:
    """Lines in their order; None is the end of them. A line that is no text is a ValueError."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[str | ValueError | None] = asyncio.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    async def line(self) -> str | None:
        """The next line. Raises ValueError where it is none; there may be more after it."""
        line = await self._lines.get()
        if isinstance(line, ValueError):
            raise line
        return line

    def give_back(self, line: str) -> None:
        """Hear this one again, after what has come meanwhile."""
        self._lines.put_nowait(line)

    def _read(self) -> None:
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
            except OSError:  # the terminal is gone
                return self._hear(None)

    def _hear(self, line: str | ValueError | None) -> None:
        self._loop.call_soon_threadsafe(self._lines.put_nowait, line)
