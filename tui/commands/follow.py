"""A run's events as plain lines, from its event log: what ``train`` and ``attach --plain`` print."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

from tfm.train import events
from tfm.train.event_log import EventReader
from tfm.train.events import AnyTrainEvent, RunEnded
from tfm.train.launch import is_alive
from tfm.train.run_dir import RunDir
from tfm.tui.commands.output import note, say
from tfm.tui.run_lines import Printer

POLL = 0.25  # seconds between two looks at the log
BACKLOG = 12  # lines of the past that attaching shows


def follow(run: RunDir, *, as_json: bool, whole: bool) -> int:
    """Print a run's events until it ends; the exit status is 0, or 1 where it failed or was lost.

    ``whole`` prints all of the past too, not only its last lines. Ctrl+C leaves the run alone.
    """
    printer = Printer()
    backlog: deque[str] = deque(maxlen=None if whole or as_json else BACKLOG)
    last: AnyTrainEvent | None = None
    past = True
    try:
        for line in tail(run):
            if line is None:  # everything that was there has been read
                for text in backlog:
                    say(text)
                backlog.clear()
                past = False
                continue
            last = events.decode(line)
            shown = [line] if as_json else printer.lines(last)
            if past and not whole:
                backlog.extend(shown)
            else:
                for text in shown:
                    say(text)
    except KeyboardInterrupt:
        note(f"\nthe run goes on; `tfm-tui attach {run.id}` shows it, `tfm-tui stop {run.id}` ends it")
        raise
    if isinstance(last, RunEnded):
        return 1 if last.reason == "failed" else 0
    note(f"run {run.id} ended without saying why; its output is in {run.log_path}")
    return 1


def tail(run: RunDir) -> Iterator[str | None]:
    """Every line of the event log as it comes, ending with the run; None each time there is no more yet."""
    reader = EventReader(run.events_path)
    while True:
        alive = is_alive(run)  # looked at before the log, so that the last lines are not missed
        lines = reader.poll()
        yield from lines
        if lines:
            continue
        yield None
        if not alive:
            return
        time.sleep(POLL)
