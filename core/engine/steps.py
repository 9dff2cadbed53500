"""Work in a thread that can be called off between two steps and tells how far it is, sparingly. No torch."""

from __future__ import annotations

from collections.abc import Callable

from tfm.core.engine.protocol import Event, LoadProgress

STEP = 0.01  # progress is told in steps of this fraction of a stage


class NotWanted(Exception):
    """The request was cancelled while it was being served."""


class Teller:
    """Turns ``(stage, done, total)`` into LoadProgress, and a cancelled request into NotWanted."""

    def __init__(self, request_id: int, emit: Callable[[Event], None], cancelled: Callable[[], bool]) -> None:
        self._id, self._emit, self._cancelled = request_id, emit, cancelled
        self._told: tuple[str, float] = ("", 0.0)

    def look(self) -> None:
        """Raises NotWanted where nobody waits any more."""
        if self._cancelled():
            raise NotWanted

    def tell(self, stage: str, done: int, total: int) -> None:
        """Raises NotWanted where nobody waits any more."""
        self.look()
        fraction = min(done / total, 1.0) if total > 0 else 0.0
        if stage != self._told[0] or fraction >= self._told[1] + STEP:
            self._told = (stage, fraction)
            self._emit(LoadProgress(id=self._id, fraction=fraction, stage=stage))
