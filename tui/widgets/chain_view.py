"""The sampling chain at one token: what each stage leaves of the distribution, in the order they act."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size

from tfm.core.engine.protocol import StageReport
from tfm.tui.widgets.cells import Row, Span
from tfm.tui.widgets.lines import Lines
from tfm.tui.widgets.token_panel import visible_piece

_WIDE = 58  # columns from which on there is room for what was removed


class ChainView(Lines):
    """One row a stage that is on."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._trace: tuple[StageReport, ...] = ()
        self._note = ""

    def chain(self, trace: tuple[StageReport, ...], note: str = "") -> None:
        self._trace, self._note = trace, note
        self.repaint()

    def build(self, columns: int) -> Sequence[Sequence[Span]]:
        if not self._trace:
            return [((line, "faint"),) for line in self._note.split("\n")]
        wide = columns >= _WIDE
        head = f"{'stage':<12}{'left':>6} {'mass':>5} {'H':>5}"
        rows: list[Row] = [((head + ("  removed" if wide else ""), "faint"),)]
        rows.append(((f"{'model':<12}{'all':>6} {1:5.3f} {self._trace[0].entropy_before:5.2f}", "dim"),))
        return rows + [self._stage(report, columns if wide else 0) for report in self._trace]

    def _stage(self, report: StageReport, columns: int) -> Row:
        acted = bool(report.removed) or abs(report.entropy_before - report.entropy_after) > 0.005
        name = set_cell_size(report.stage.replace("_", "-"), 11)
        row: list[Span] = [
            (f"{name} ", "" if acted else "dim"),
            (f"{report.left:>6,} ", "strong" if report.removed else "dim"),
            (f"{report.mass:5.3f} ", "dim"), (f"{report.entropy_after:5.2f}", "" if acted else "dim"),
        ]  # fmt: skip
        room = columns - 31
        for piece in report.removed:
            text = visible_piece(piece)
            if cell_len(text) + 2 > room:
                break
            row.append((f"  {text}", "gone"))
            room -= cell_len(text) + 2
        return tuple(row)
