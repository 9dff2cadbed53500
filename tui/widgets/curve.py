"""One live curve: its newest figures, the line, and what its edges stand for."""

from __future__ import annotations

from collections.abc import Sequence

from tfm.tui.widgets.braille import Point, Scale, Series, plot, row_of, scale
from tfm.tui.widgets.cells import Row, Span, spread
from tfm.tui.widgets.lines import Lines

_MARGIN = 8  # cells for the labels on the left, axis included
_SETTLED = 0.05  # share of the steps whose values may lie above the plot, where it is told to settle


class Curve(Lines):
    """Up to two series over the same steps: what is trained on, and what is held out (dashed)."""

    def __init__(self, title: str, *, id: str, settle: bool = False) -> None:
        """``settle``: the first values, which may be huge, do not set the scale."""
        super().__init__(id=id, classes="curve")
        self._title = title
        self._settle = settle
        self._figures: Sequence[Span] = ()
        self._trained: Sequence[Point] = ()
        self._held_out: Sequence[Point] = ()

    @property
    def points(self) -> int:
        """How many points of a series there is room for: two a column."""
        return 2 * max(1, self.size.width - _MARGIN)

    def draw(self, figures: Sequence[Span], trained: Sequence[Point], held_out: Sequence[Point]) -> None:
        """Series are drawn as they come: downsample them to :attr:`points` first."""
        self._figures, self._trained, self._held_out = figures, trained, held_out
        self.repaint()

    def build(self, columns: int) -> Sequence[Sequence[Span]]:
        title: Row = ((f" {self._title}", "strong"), *self._figures)
        rows, room = self.size.height - 2, columns - _MARGIN
        every = [*self._trained, *self._held_out]
        if not every or rows < 1 or room < 2:
            return [title]
        first, last = min(x for x, _ in every), max(x for x, _ in every)
        up = scale(self._scaled(every, first, last), rows)
        series = (Series(self._trained, "live"), Series(self._held_out, "second", dashed=bool(self._trained)))
        lines = plot(series, room, rows, (first, last), up)
        labels = self._labels(rows, up)
        body = [((labels.get(y, f"{'│':>{_MARGIN}}"), "faint"), *line) for y, line in enumerate(lines)]
        steps = spread(((f"{'╰':>{_MARGIN}}╴{first:,.0f} ", "faint"),), ((f"{last:,.0f}", "faint"),), columns)
        return [title, *body, steps]

    def _scaled(self, every: Sequence[Point], first: float, last: float) -> list[float]:
        """The values that the scale must hold."""
        if self._settle:
            settled = [y for x, y in every if x >= first + (last - first) * _SETTLED]
            if len(settled) > 10:
                return settled
        return [y for _, y in every]

    def _labels(self, rows: int, up: Scale) -> dict[int, str]:
        return {row_of(tick, rows, up): f"{_label(tick):>{_MARGIN - 2}} ┤" for tick in up.ticks}


def _label(value: float) -> str:
    """A number in at most six characters."""
    for form in (".3g", ".2g", ".1g"):
        text = format(value, form)
        if len(text) <= _MARGIN - 2:
            return text
    return f"{value:.0e}"
