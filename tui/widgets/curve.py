"""One live plot: its newest figures, a line for each run, and what its edges stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tfm.tui.curves import axis_label
from tfm.tui.run_record import short
from tfm.tui.settings import Axis
from tfm.tui.widgets.braille import Scale, Series, plot, row_of, scale
from tfm.tui.widgets.cells import Row, Span, spread, width
from tfm.tui.widgets.lines import Lines

_MARGIN = 8  # cells for the labels on the left, axis included
_SETTLED = 0.05  # share of the window whose values may lie above the plot, where it is told to settle


class Drawing(NamedTuple):
    """What a plot shows. Series are drawn as they come: thin them out to ``Curve.points`` first."""

    title: str
    figures: Row = ()
    series: tuple[Series, ...] = ()
    across: tuple[float, float] = (0.0, 0.0)
    axis: Axis = "step"
    log: bool = False
    settle: bool = False


class Curve(Lines):
    """A plot of any number of series over one axis."""

    drawing = Drawing("")

    @property
    def points(self) -> int:
        """How many points of a series there is room for: two a column."""
        return 2 * max(1, self.size.width - _MARGIN)

    def draw(self, drawing: Drawing) -> None:
        self.drawing = drawing
        self.repaint()

    def build(self, columns: int) -> Sequence[Sequence[Span]]:
        now = self.drawing
        title: Row = ((f" {now.title}", "strong"), *now.figures)
        rows, room = self.size.height - 2, columns - _MARGIN
        log = now.log and all(y > 0 for one in now.series for _, y in one.points)
        if now.log and log:
            title = (title[0], (" log", "dim"), *title[1:])
        values = _scaled(now)
        if not values or rows < 1 or room < 2:
            return [title]
        up = scale(values, rows, log)
        lines = plot(now.series, room, rows, now.across, up)
        labels = _labels(rows, up)
        body = [((labels.get(y, f"{'│':>{_MARGIN}}"), "faint"), *line) for y, line in enumerate(lines)]
        first, last = (axis_label(edge, now.axis) for edge in now.across)
        left: Row = ((f"{'╰':>{_MARGIN}}╴{first} ", "faint"),)
        if width(left) + len(last) > columns:
            return [title, *body, left]
        return [title, *body, spread(left, ((last, "faint"),), columns)]


def _scaled(now: Drawing) -> list[float]:
    """The values that the scale must hold: those in the window."""
    left, right = now.across
    seen = [(x, y) for one in now.series for x, y in one.points if left <= x <= right]
    if not seen:
        return [y for one in now.series for _, y in one.points]
    if now.settle:
        settled = [y for x, y in seen if x >= left + (right - left) * _SETTLED]
        if len(settled) > 10:
            return settled
    return [y for _, y in seen]


def _labels(rows: int, up: Scale) -> dict[int, str]:
    return {row_of(tick, rows, up): f"{_label(tick):>{_MARGIN - 2}} ┤" for tick in up.ticks}


def _label(value: float) -> str:
    """A number in at most six characters."""
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 10_000 else short(value)
    for form in (".3g", ".2g", ".1g"):
        text = format(value, form)
        if len(text) <= _MARGIN - 2:
            return text
    return f"{value:.0e}"
