"""What the events of a run amount to: how far it is, its best scores, how it ended. No torch.

A process that has read a log before goes on where it was, so a list that is shown every few seconds does
not read weeks of training each time.
"""

from __future__ import annotations

import threading
from copy import copy
from pathlib import Path
from typing import Any

from tfm.train import events
from tfm.train.event_log import EventReader
from tfm.train.events import CommandDone, Evaluated, RunEnded, RunStarted, Step, TrainEvent


class History:
    """What the events so far amount to."""

    def __init__(self) -> None:
        self.step = 0
        self.total_steps = 0
        self.started = 0.0
        self.paused = False
        self.ended: str | None = None
        self.best: dict[str, float] = {}

    def add(self, event: TrainEvent) -> None:
        match event:
            case RunStarted(total_steps=total, time=at):
                self.total_steps, self.paused, self.ended = total, False, None
                self.started = self.started or at
                self.step = event.resumed_from or 0
            case Step(step=step):
                self.step = step
            case Evaluated():
                self._keep("loss", event.loss, min)
                self._keep("perplexity", event.perplexity, min)
                self._keep("accuracy", event.accuracy, max)
                self._keep("bleu", event.bleu, max)
                self._keep("chrf", event.chrf, max)
                self._keep("cer", event.cer, min)
                self._keep("wer", event.wer, min)
            case CommandDone(command="pause" | "resume" as command, ok=True):
                self.paused = command == "pause"
            case RunEnded(reason=reason, step=step):
                self.ended, self.step = reason, step

    def copy(self) -> History:
        """As it is now, whatever is added later."""
        copied = copy(self)
        copied.best = dict(self.best)
        return copied

    def _keep(self, name: str, value: float | None, better: Any) -> None:
        if value is not None:
            self.best[name] = better(self.best.get(name, value), value)


class _Followed:
    """A log, and what it amounts to as far as it was read."""

    def __init__(self, path: Path, file: tuple[int, int] | None) -> None:
        self.file, self.size = file, 0
        self.reader, self.history = EventReader(path), History()


_followed: dict[Path, _Followed] = {}
_reading = threading.Lock()


def history_of(path: Path) -> History:
    """What the whole log at ``path`` amounts to. What was read before is not read again."""
    with _reading:
        file, size = _identity(path)
        log = _followed.get(path)
        if log is None or log.file != file or size < log.size:  # replaced by another, or cut
            log = _followed[path] = _Followed(path, file)
        log.size = size
        while lines := log.reader.poll():
            for line in lines:
                log.history.add(events.decode(line))
        return log.history.copy()


def _identity(path: Path) -> tuple[tuple[int, int] | None, int]:
    """Which file is there, and its size."""
    try:
        found = path.stat()
    except OSError:
        return None, 0
    return (found.st_dev, found.st_ino), found.st_size
