"""Lines: a few rows of styled text that repaint only the cells that changed.

The whole quiet part of the screen (header, key line, sampling panel, candidates, figures) is made
of these. A row is a tuple of spans ``(text, style)``; the styles are the looks of
:mod:`tfm.tui.palette`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from rich.segment import Segment
from textual.dom import DOMNode
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget

from tfm.tui.safe_text import plain, safe_text
from tfm.tui.widgets.cells import JOINER, Cells, Row, Span, cells_of, changed, fit

if TYPE_CHECKING:
    from tfm.tui.app import TfmApp
    from tfm.tui.keys_file import Keys


def name_box(box: Widget, *, title: str | None = None, subtitle: str | None = None) -> None:
    """Write on a box's border. A title that stays costs nothing: setting one repaints the whole box."""
    if title is not None and box.border_title != plain(title).markup:
        box.border_title = plain(title)
    if subtitle is not None and box.border_subtitle != plain(subtitle).markup:
        box.border_subtitle = plain(subtitle)


def keys_of(node: DOMNode) -> Keys:
    """The keys of now, for whoever names one."""
    return cast("TfmApp", node.app).keys


def strip_of(widget: Widget, row: Row, columns: int) -> Strip:
    """Paint one row over the widget's own background."""
    base = widget.rich_style
    looks = cast("TfmApp", widget.app).palette
    segments = [Segment(text.lstrip(JOINER), base + looks[name]) for text, name in row if text]
    return Strip(segments).adjust_cell_length(columns, base)


class Lines(Widget):
    """Shows rows. A subclass says in :meth:`build` what they are and calls :meth:`repaint` when
    they may have changed; a plain one is told by :meth:`show`."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._given: tuple[Row, ...] = ()
        self._rows: tuple[Row, ...] = ()
        self._cells: list[Cells] = []

    @property
    def rows(self) -> tuple[Row, ...]:
        """What is on the screen now."""
        return self._rows

    @property
    def keys_of_now(self) -> Keys:
        """For rows that name a key."""
        return keys_of(self)

    def show(self, rows: Sequence[Sequence[Span]]) -> None:
        self._given = tuple(tuple(row) for row in rows)
        self.repaint()

    def build(self, columns: int) -> Sequence[Sequence[Span]]:
        """The rows for this width; longer ones are cut."""
        return self._given

    def repaint(self) -> None:
        """Build the rows anew and refresh the cells that differ. Every text is made safe here."""
        columns = self.size.width
        if columns < 1:  # not laid out yet: on_resize comes back here
            return
        fresh = tuple(fit(tuple((safe_text(t), s) for t, s in row), columns) for row in self.build(columns))
        if fresh == self._rows:
            return
        height_changed = len(fresh) != len(self._rows)
        self._rows = fresh
        old, self._cells = self._cells, [cells_of(row) for row in fresh]
        if height_changed and self.styles.auto_dimensions:
            self.refresh(layout=True)
            return
        for y in range(max(len(old), len(self._cells))):
            span = changed(old[y] if y < len(old) else [], self._cells[y] if y < len(fresh) else [])
            if span is not None:
                self.refresh(Region(span[0], y, span[1] - span[0], 1))

    def on_resize(self) -> None:
        self.repaint()

    def render_line(self, y: int) -> Strip:
        row = self._rows[y] if y < len(self._rows) else ()
        return strip_of(self, row, self.size.width)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return max(1, len(self.build(width)))
