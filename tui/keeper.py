"""Keeper: saves a conversation while it grows, beside the screen and never in its way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tfm.tui.conversation import Conversation
from tfm.tui.transcripts import Transcripts


class Keeper:
    """Writes what changed when it is told to; one save at a time, the newest state always last."""

    def __init__(self, store: Transcripts, on_problem: Callable[[str], None]) -> None:
        self.store = store
        self._on_problem = on_problem
        self._changed: Conversation | None = None
        self._saving = asyncio.Lock()
        self._complained = False

    def changed(self, conversation: Conversation) -> None:
        """It is not on the disk as it is now. A conversation without a turn is not worth a file."""
        if conversation.turns:
            self._changed = conversation

    async def save(self) -> None:
        """Save what changed. The disk may be slow, so another thread waits for it; the encoding is one
        call that no other thread of ours can come between."""
        async with self._saving:
            conversation, self._changed = self._changed, None
            if conversation is not None:
                await asyncio.to_thread(self._write, conversation)

    def save_now(self) -> None:
        """The same without waiting in line: the app is about to end."""
        conversation, self._changed = self._changed, None
        if conversation is not None:
            self._write(conversation)

    def _write(self, conversation: Conversation) -> None:
        try:
            self.store.save(conversation)
            self._complained = False
        except OSError as error:
            if not self._complained:  # once, and not every two seconds
                self._complained = True
                self._on_problem(f"This chat cannot be saved in {self.store.folder}: {error.strerror}.")
