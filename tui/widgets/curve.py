"""One live curve: a title with its newest figures, and a plot under it. Imports numpy, so it is
imported when the first run is watched and not before."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Vertical
from textual_hires_canvas import HiResMode
from textual_plot import PlotWidget

from tfm.tui.widgets.cells import Span
from tfm.tui.widgets.lines import Lines

Points = Sequence[tuple[float, float]]


class _Plot(PlotWidget, can_focus=False):
    """A plot that only shows: no pan, no zoom, no keys of its own, narrow margins."""

    BINDINGS = []

    def __init__(self) -> None:
        super().__init__(allow_pan_and_zoom=False)
        self.margin_top = 0
        self.margin_bottom = 1
        self.margin_left = 7


class Curve(Vertical):
    """Up to two series over the same steps: what was trained on, and what was held out."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id, classes="curve")
        self._drawn: tuple[tuple[tuple[float, float], ...], ...] = ()

    def compose(self) -> ComposeResult:
        yield Lines(classes="curve-title")
        yield _Plot()

    @property
    def columns(self) -> int:
        """Cells that the plot itself has in a row."""
        return max(2, self.size.width - 9)

    def title(self, spans: Sequence[Span]) -> None:
        self.query_one(".curve-title", Lines).show([spans])

    def draw(self, first: Points, second: Points = ()) -> None:
        """Draw again where something changed. Series are drawn as they come: downsample them first."""
        series = (tuple(first), tuple(second))
        if series == self._drawn:
            return
        self._drawn = series
        plot = self.query_one(_Plot)
        plot.clear()
        names = ("t-live", "t-second")
        title = self.query_one(".curve-title", Lines)
        for points, name in zip(series, names, strict=True):
            if len(points) < 2:
                continue
            x, y = [p[0] for p in points], [p[1] for p in points]
            colour = title.get_component_styles(name).color.hex6
            plot.plot(x, y, line_style=colour, hires_mode=HiResMode.BRAILLE)
