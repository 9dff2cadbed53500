"""A request while it is being served, and the turns that several of them take. No torch."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from tfm.core.engine.protocol import Request
from tfm.core.sampling.settings import SamplingSettings


class Job:
    """One request: what was asked, whether to stop, and which knobs have moved since.

    A job waits (for its model), runs, and is closed once. The thread that reads requests cancels
    and tunes it; the thread that serves it asks before each step.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self._since = time.perf_counter()
        self._lock = threading.Lock()
        self._cancelled = False
        self._running = False
        self._closed = False
        self._tuned: dict[int | None, SamplingSettings] = {}

    def start(self) -> bool:
        """The wait is over. False: it was cancelled meanwhile and is closed already."""
        with self._lock:
            self._running = not self._closed
            return self._running

    def close(self) -> bool:
        """True for the one who closes it, and so may send the last event."""
        with self._lock:
            first, self._closed = not self._closed, True
            return first

    def cancel(self) -> bool:
        """Ask it to stop. True: it had not begun, so the caller closes it."""
        with self._lock:
            self._cancelled = True
            return not self._running and not self._closed

    def cancelled(self) -> bool:
        return self._cancelled

    def closed(self) -> bool:
        return self._closed

    def seconds(self) -> float:
        """Since it was asked for."""
        return time.perf_counter() - self._since

    def tune(self, lane: int | None, settings: SamplingSettings) -> None:
        """New settings for one lane, or for all of them (None)."""
        with self._lock:
            if lane is None:
                self._tuned.clear()  # what was said of single lanes before is overruled
            self._tuned[lane] = settings

    def take_tuned(self, n_lanes: int) -> dict[int, SamplingSettings] | None:
        """What was tuned since the last call, by lane; None if nothing was."""
        with self._lock:
            tuned, self._tuned = self._tuned, {}
        if not tuned:
            return None
        everyone = dict.fromkeys(range(n_lanes), tuned[None]) if None in tuned else {}
        return everyone | {lane: settings for lane, settings in tuned.items() if lane is not None}


class Turns:
    """Calls each of its turns again and again, one after the other, until it returns False.

    One thread runs it; any thread adds turns. This is how several generations share the machine:
    a turn is one step of one of them.
    """

    def __init__(self) -> None:
        self._queue: deque[Callable[[], bool]] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def add(self, turn: Callable[[], bool]) -> None:
        with self._changed:
            self._queue.append(turn)
            self._changed.notify()

    def close(self) -> None:
        """run() returns after the turn that is going on."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if self._closed:
                    return
                turn = self._queue.popleft()
            if turn():
                self.add(turn)
