"""The timer by which a screen paints: a frame is due one period after the last one began, and no later.

Textual's own keeps to a grid: a frame that took longer than a period makes the next one wait for the grid
point after the next, up to two periods, though nothing is being done meanwhile. What is typed waits with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from textual._context import active_app
from textual.screen import UPDATE_PERIOD, Screen
from textual.timer import Timer


class FrameTimer(Timer):
    """Ticks as soon as it is resumed, but for a period between the beginnings of two ticks."""

    @classmethod
    def of(cls, screen: Screen[Any], paint: Callable[[], None]) -> FrameTimer:
        """The one for a screen, in the place of Textual's own; it waits to be resumed."""
        timer = cls(screen, UPDATE_PERIOD, name="frames", callback=paint, pause=True)
        timer._start()
        screen._timers.add(timer)
        return timer

    async def _run(self) -> None:
        _ = self._active  # made in this thread
        app = active_app.get()
        while not app._exit:
            await self._active.wait()
            began = time.monotonic()
            await self._tick(next_timer=began, count=0)
            await asyncio.sleep(max(0.0, began + self._interval - time.monotonic()))
