"""Below the list of models: what is being done, what came of the last thing, and what is in memory."""

from __future__ import annotations

from collections.abc import Sequence

from tfm.tui.commands.output import human_bytes
from tfm.tui.shelf import Shelf, Work
from tfm.tui.widgets.cells import Row, Span, fit, spread, width
from tfm.tui.widgets.lines import Lines
from tfm.tui.widgets.run_panel import bar

BAR = 20  # cells


class ModelFoot(Lines):
    """One row for each thing that is going on, one of news, one of memory."""

    def __init__(self, shelf: Shelf, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.shelf = shelf
        self.news: Span = ("", "")

    def build(self, columns: int) -> Sequence[Sequence[Span]]:
        rows: list[Row] = [_going_on(work, columns) for work in self.shelf.works]
        if not rows:  # one row stays, so that the rest does not jump
            rows = [fit(((f" {self.news[0]}", self.news[1]),), columns)]
        return [*rows, self._memory(columns)]

    def _memory(self, columns: int) -> Row:
        shelf = self.shelf
        if not shelf.budget_bytes:
            return ((" nothing is in memory yet", "faint"),)
        taken = sum(model.size_bytes + model.prefix_bytes for model in shelf.held)
        right: list[Span] = [(f" {human_bytes(taken)} of {human_bytes(shelf.budget_bytes)} ", "dim")]
        if columns > 100:
            right += [*bar(taken / shelf.budget_bytes, BAR, "second"), (" ", "")]
        left: list[Span] = [(" in memory ", "faint")]
        names = [
            f"{shelf.name_of(model.path)} {model.precision} {human_bytes(model.size_bytes)}"
            for model in reversed(shelf.held)
        ]
        left.append((" · ".join(names) or "nothing", "dim" if names else "faint"))
        return spread(tuple(left), tuple(right), columns)


def _going_on(work: Work, columns: int) -> Row:
    what = f" {work.verb} {work.name} "
    stage = " cancelling …" if work.cancelled else f" {work.fraction:4.0%}  {work.stage}"
    room = columns - width(((what, ""), (stage, "")))
    drawn = bar(work.fraction, min(BAR, room), "live") if room >= 6 else []
    return fit(((what, "strong"), *drawn, (stage, "dim")), columns)
