"""Every run of the engine's machine, newest first, one of them chosen, some of them marked."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tfm.core.engine.protocol import RunInfo
from tfm.tui.widgets.cells import Row, Span, spread
from tfm.tui.widgets.lines import Lines

STATE_STYLE = {"running": "live", "starting": "live", "paused": "second", "failed": "bad", "lost": "bad"}


class RunList(Lines):
    runs: tuple[RunInfo, ...] = ()
    chosen = 0
    marked: tuple[str, ...] = ()  # in the order in which they were marked
    message = "Looking for runs …"
    example = ""  # a config, shown below the message

    def build(self, columns: int) -> Sequence[Sequence[Span]]:
        if not self.runs:
            lines = ["", *self.example.splitlines()] if self.example else []
            return [((self.message, "dim"),), *([("    ", ""), (line, _look(line))] for line in lines)]
        name = max(18, *(len(run.run) for run in self.runs)) + 2
        head: Row = ((f"    {'run':<{name}}{'state':<10}{'step':>16}  best", "faint"),)
        rows = [spread(head, (("started ", "faint"),), columns)]
        rows += [self._row(number, name, columns) for number in range(len(self.runs))]
        return rows

    def _row(self, number: int, name: int, columns: int) -> Row:
        run = self.runs[number]
        here = number == self.chosen
        steps = f"{run.step:,} / {run.total_steps:,}" if run.total_steps else f"{run.step:,}"
        best = "  ".join(f"{key} {value:.3g}" for key, value in _best(run.best)[: 2 if columns > 96 else 1])
        since = ago(time.time() - run.started) if run.started else ""
        left: Row = (
            ("▸ " if here else "  ", "live"),
            ("✓ " if run.run in self.marked else "  ", "second"),
            (f"{run.run:<{name}}", "strong" if here else ""),
            (f"{run.state:<10}", STATE_STYLE.get(run.state, "dim")),
            (f"{steps:>16}  ", "dim"),
            (best, ""),
        )
        return spread(left, ((f"{since} ", "dim"),), columns)


def _look(line: str) -> str:
    """Of a line of TOML."""
    return "faint" if line.startswith("#") else "dim" if line.startswith("[") else ""


def _best(best: dict[str, float]) -> list[tuple[str, float]]:
    """The two scores that say most, of those there are."""
    order: tuple[str, ...] = ("bleu", "accuracy", "loss")
    return [(name, best[name]) for name in order if name in best][:2]


def ago(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return "just now"
