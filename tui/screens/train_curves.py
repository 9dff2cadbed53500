"""The curves of the panel: which are shown, over what, how smooth, how close."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

import msgspec
from textual.containers import Grid
from textual.widget import Widget

from tfm.tui import curves
from tfm.tui.curves import KINDS, CurveKind, View
from tfm.tui.run_record import RunRecord
from tfm.tui.screens.checklist import Checklist
from tfm.tui.screens.train_steer import Steering
from tfm.tui.widgets.curve import Curve
from tfm.tui.widgets.drawing import drawing_of

if TYPE_CHECKING:
    from tfm.tui.app import TfmApp

_LEAST = (38, 9)  # cells of a plot that can be read


class CurveRoom(Steering):
    """The actions of ``keymap.RUN`` that are about curves."""

    def __init__(self) -> None:
        super().__init__(id="run")
        self.records: list[RunRecord] = []  # the one that is steered, then those that are drawn over it
        self.view = View()
        self.chosen: tuple[str, ...] = ()  # ids of the curves that a person wants; (): what fits
        self.full = ""  # id of the curve that is shown alone

    def plots(self) -> Iterable[Widget]:
        """One for each kind of curve; those that are not shown take no room."""
        with Grid(id="curves"):
            for kind in KINDS:
                yield Curve(id=f"curve-{kind.id}", classes="curve")

    def redraw(self) -> None:
        """Paint what changed, now."""
        raise NotImplementedError

    # ------------------------------------------------------------------ drawing
    def shown_curves(self) -> list[CurveKind]:
        """Those that a person chose, or the ones that say most, as many as there is room for."""
        there = curves.available(self.records)
        if self.full:
            return [kind for kind in there if kind.id == self.full] or there[:1]
        chosen = [kind for kind in there if kind.id in self.chosen]
        if chosen:
            return chosen
        room = self.query_one("#curves").size
        fits = max(1, room.width // _LEAST[0]) * max(1, room.height // _LEAST[1])
        return curves.suggested(self.records, fits)

    def draw_curves(self) -> None:
        grid, shown = self.query_one("#curves"), self.shown_curves()
        rows = max(1, grid.size.height // _LEAST[1])
        columns = min(max(1, grid.size.width // _LEAST[0]), -(-len(shown) // rows))
        if grid.styles.grid_size_columns != columns:
            grid.styles.grid_size_columns = columns
        across = curves.window(self.view, curves.extent_of(self.records, self.view.axis))
        laid_out = True
        for kind in KINDS:
            curve = self.query_one(f"#curve-{kind.id}", Curve)
            if curve.display != (kind in shown):
                curve.display = kind in shown
                laid_out = False
            if curve.display:
                curve.draw(drawing_of(kind, self.records, self.view, across, curve.points))
        if not laid_out:  # their sizes are others when that is done
            self.call_after_refresh(self.changed)

    # ------------------------------------------------------------------ how it is looked at
    def recall(self) -> None:
        """Look at runs as the last time."""
        self.view, self.chosen = curves.remembered(cast("TfmApp", self.app).settings.curves)

    def look_at(self, view: View) -> None:
        self.view = view
        app = cast("TfmApp", self.app)
        app.remember(msgspec.structs.replace(app.settings, curves=curves.to_remember(view, self.chosen)))
        self.changed()
        self.redraw()

    @property
    def _extent(self) -> curves.Pair:
        return curves.extent_of(self.records, self.view.axis)

    def action_axis(self) -> None:
        self.look_at(curves.turn_axis(self.view))

    def action_log(self) -> None:
        self.look_at(curves.turn_log(self.view))

    def action_split(self) -> None:
        self.look_at(curves.turn_split(self.view))

    def action_smooth(self, by: int) -> None:
        self.look_at(curves.turn_smoothing(self.view, by))

    def action_zoom(self, by: int) -> None:
        least = curves.least_width(self.records, self.view.axis)
        self.look_at(curves.zoom(self.view, by, self._extent, least))

    def action_pan(self, by: int) -> None:
        self.look_at(curves.pan(self.view, by / 4, self._extent))

    def action_newest(self) -> None:
        self.look_at(curves.newest(self.view))

    def action_whole(self) -> None:
        self.look_at(curves.whole(self.view))

    def action_full(self) -> None:
        """One curve alone, the next one, and after the last all of them again."""
        before, self.full = self.full, ""
        ids = [kind.id for kind in self.shown_curves()]
        self.full = "" if before == ids[-1] else ids[ids.index(before) + 1] if before in ids else ids[0]
        self.look_at(self.view)

    def action_choose_curves(self) -> None:
        def done(ticked: tuple[str, ...] | None) -> None:
            if ticked is not None:
                self.chosen, self.full = ticked, ""
                self.look_at(self.view)

        there = [(kind.id, kind.title) for kind in curves.available(self.records)]
        now = [kind.id for kind in self.shown_curves()]
        self.app.push_screen(Checklist("Curves (none: what fits)", there, now, len(KINDS)), done)
