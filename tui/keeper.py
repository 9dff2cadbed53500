"""Keeper: saves a work while it grows, beside the screen and never in its way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic

from tfm.tui.store import Store, W


class Keeper(Generic[W]):
    """Writes what changed when it is told to; one save at a time, the newest state always last."""

    def __init__(self, store: Store[W], on_problem: Callable[[str], None]) -> None:
        self.store = store
        self._on_problem = on_problem
        self._changed: W | None = None
        self._saving = asyncio.Lock()
        self._complained = False

    def changed(self, work: W) -> None:
        """It is not on the disk as it is now. An empty work is not worth a file of its own."""
        if work.key or not work.empty:
            self._changed = work

    async def save(self) -> None:
        """Save what changed. The disk may be slow, so another thread waits for it; the encoding is one
        call that no other thread of ours can come between."""
        async with self._saving:
            work, self._changed = self._changed, None
            if work is not None:
                await asyncio.to_thread(self._write, work)

    def save_now(self) -> None:
        """The same without waiting in line: the app is about to end."""
        work, self._changed = self._changed, None
        if work is not None:
            self._write(work)

    def forget(self, key: str) -> None:
        """Do not save a work that was deleted."""
        if self._changed is not None and self._changed.key == key:
            self._changed = None

    def _write(self, work: W) -> None:
        try:
            self.store.save(work)
            self._complained = False
        except OSError as error:
            if not self._complained:  # once, and not every two seconds
                self._complained = True
                where = f"{self.store.folder}: {error.strerror}"
                self._on_problem(f"What you do here cannot be saved in {where}.")
