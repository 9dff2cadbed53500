"""Keeper: saves a work while it grows, beside the screen and never in its way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Generic

from tfm.tui.encoding import snapshot
from tfm.tui.store import Store, W

REST = 9.0  # times what a save took pass before the next: at most a tenth of the time goes into it


class Keeper(Generic[W]):
    """Writes what changed when it is told to; one save at a time, the newest state always last."""

    def __init__(self, store: Store[W], on_problem: Callable[[str], None]) -> None:
        self.store = store
        self._on_problem = on_problem
        self._changed: W | None = None
        self._saving = asyncio.Lock()
        self._complained = False
        self._due = 0.0  # when it may be saved again

    def changed(self, work: W) -> None:
        """It is not on the disk as it is now. An empty work is not worth a file of its own."""
        if work.key or not work.empty:
            self._changed = work

    async def keep_up(self) -> None:
        """Save what changed, but for what was saved a moment ago: a long work takes long to write."""
        if time.monotonic() >= self._due:
            await self.save()

    async def save(self) -> None:
        """Save what changed, as it is now. Another thread encodes it and waits for the disk."""
        async with self._saving:
            work, self._changed = self._changed, None
            if work is not None:
                began = time.monotonic()
                await asyncio.to_thread(self._write, work, snapshot(work))
                self._due = time.monotonic() + REST * (time.monotonic() - began)

    def save_now(self) -> None:
        """The same without waiting in line: the app is about to end."""
        work, self._changed = self._changed, None
        if work is not None:
            self._write(work)

    def forget(self, key: str) -> None:
        """Do not save a work that was deleted."""
        if self._changed is not None and self._changed.key == key:
            self._changed = None

    def _write(self, work: W, image: W | None = None) -> None:
        try:
            self.store.save(work, image)
            self._complained = False
        except OSError as error:
            if not self._complained:  # once, and not every two seconds
                self._complained = True
                where = f"{self.store.folder}: {error.strerror}"
                self._on_problem(f"What you do here cannot be saved in {where}.")
