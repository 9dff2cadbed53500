"""How much of a frame a flood may take, so that keys, clocks and painting always have their turn.

An engine writes hundreds of tokens a second on a CPU and thousands on a GPU. Taken one by one as they come,
they would fill the event loop, and a key would wait behind all of them at each of the dozen hops
from the terminal to the screen. So whoever takes in events spends at most a share of each frame on them; what
does not fit waits for the next one, in the pipe or in a queue.
"""

from __future__ import annotations

import asyncio
import time

FRAME = 1 / 60  # seconds
READING = 0.25  # of a frame: decoding what comes through the pipe
TAKING = 0.35  # of a frame: putting it into records and onto the screen
PART = 8  # one part in so many of what waits is taken in any case: a queue never grows without end


class Allowance:
    """What one task may spend of each frame."""

    def __init__(self, share: float, frame: float = FRAME) -> None:
        self._seconds = share * frame
        self._frame = frame
        self._began = 0.0  # of the frame that is being counted
        self._spent = 0.0

    async def pay(self, seconds: float) -> None:
        """Account for work that was done. Returns when there may be more: in the next frame, where this
        one's share is spent; and never without giving others a turn."""
        now = time.monotonic()
        if now - self._began > self._frame:
            self._began, self._spent = now - seconds, 0.0
        self._spent += seconds
        left = self._began + self._frame - now
        await asyncio.sleep(left if self._spent > self._seconds and left > 0 else 0)


class Handfuls:
    """How many events to take at once: as many as their cost lately lets into a share of a frame."""

    def __init__(self, share: float = TAKING, frame: float = FRAME) -> None:
        self._seconds = share * frame
        self._cost = 50e-6  # seconds an event, a guess until there is something to go by

    def size(self, waiting: int) -> int:
        return max(1, int(self._seconds / self._cost), waiting // PART)

    def cost(self, events: int, seconds: float) -> None:
        """What a handful took."""
        self._cost += (max(seconds / events, 1e-6) - self._cost) / 4
