"""PaintedRows: many rows that scroll, of which only the cells that changed are sent to the terminal.

A Line API widget. It holds no rows: it asks for those that are in sight, remembers how they were painted,
and once a frame compares them with how they are now. A transcript may be a hundred thousand rows long;
what a new token costs depends only on what the window shows.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

from textual.events import Resize
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.timer import Timer

from tfm.tui.widgets.cells import Cells, Row, cells_of, changed
from tfm.tui.widgets.lines import strip_of

if TYPE_CHECKING:
    from tfm.tui.app import TfmApp

MARGIN = 1  # columns to the left of the text, where marks stand
MARK = "◆"  # here something about how the text is written changed
LEAP = 4  # one part in so many of the window is scrolled at once while text grows
LEAP_ROWS = 5  # or so many rows of a low window, but no more than half of it


class PaintedRows(ScrollView):
    """A subclass knows the rows: it gives them out, and calls :meth:`touch` when they change."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._rows: dict[int, Row] = {}  # by row: as it was when it was painted last
        self._seen: dict[int, Cells] = {}  # the same, cell by cell
        self._touched = False
        self._frame: Timer | None = None
        self._painted = 0.0  # when the last frame was
        self._following = True  # is the end of the text in sight, and to stay there?

    # ------------------------------------------------------------------ for the subclass
    @property
    def n_rows(self) -> int:
        raise NotImplementedError

    def row(self, y: int) -> Row:
        """One of the rows 0 to ``n_rows`` - 1, safe to paint."""
        raise NotImplementedError

    def in_margin(self, y: int) -> bool:
        """Does a mark stand in the margin of this row?"""
        return False

    def set_columns(self, columns: int) -> None:
        """The width has changed."""
        raise NotImplementedError

    @property
    def confident(self) -> bool:
        """Is text coloured by how sure the model was?"""
        return cast("TfmApp", self.app).settings.confidence

    @property
    def columns(self) -> int:
        # one column stays free: the cursor stands there, and a scrollbar never makes rows wrap anew
        return max(1, self.scrollable_content_region.width - 1 - MARGIN)

    def _whole(self, y: int) -> Row:
        """A row with its margin."""
        if y >= self.n_rows:
            return ()
        return ((MARK, "mark") if self.in_margin(y) else (" ", ""), *self.row(y))

    def touch(self, *, follow: bool = False) -> None:
        """Some rows may look different: paint them with the next frame. ``follow``: show the end."""
        self._following = self._following or follow
        self._touched = True
        if self._frame is None and self.is_mounted:
            now = time.monotonic()
            due = self._painted + cast("TfmApp", self.app).pace.interval(now)
            self._frame = self.set_timer(max(due - now, 0.001), self._paint)

    def show_end(self) -> None:
        """Other rows: begin at their end."""
        height = self.scrollable_content_region.height
        self._set_height(max(self.n_rows, height))
        self.scroll_to(y=max(0, self.n_rows - height), animate=False, force=True, immediate=True)
        self.touch(follow=True)

    def show_rows(self, first: int, last: int) -> None:
        """Scroll so that these rows are in sight; where there is no room for all, one of them will do."""
        height = self.scrollable_content_region.height
        top = self.scroll_offset.y
        wanted = top
        if last - first >= height:
            wanted = top if first < top + height and last >= top else first
        elif first < top:
            wanted = first
        elif last >= top + height:
            wanted = last - height + 1
        self._following = last >= self.n_rows - 2
        if wanted != top:
            self._set_height(max(self.n_rows, height, wanted + height))
            self.scroll_to(y=wanted, animate=False, force=True, immediate=True)

    # ------------------------------------------------------------------ painting
    def _paint(self) -> None:
        self._frame = None
        if not self._touched:
            return
        self._touched = False
        self._painted = time.monotonic()
        height = self.scrollable_content_region.height
        if self.scroll_offset.y > max(0, self.n_rows - height + _leap_rows(height)):
            self.show_end()  # the text became shorter, and what was in sight is past its end
        self._set_height(max(self.n_rows, height, self.scroll_offset.y + height if self._following else 0))
        if self._following and self.n_rows > self.scroll_offset.y + height:
            self._leap(height)
            return  # a scroll paints everything
        top, left = self.scroll_offset.y, self.scroll_offset.x
        for y in range(top, top + height):
            row = self._whole(y)
            cells = cells_of(row)
            span = changed(self._seen.get(y, []), cells)
            if span is not None:
                # What is rendered is what was compared here, however much the text grows until then:
                # otherwise cells that no region names would count as painted.
                self._rows[y], self._seen[y] = row, cells
                self.refresh(Region(span[0] - left, y - top, span[1] - span[0], 1))

    def _leap(self, height: int) -> None:
        """Make room below: a scroll sends the whole window, so it is done for several rows at once."""
        top = max(0, self.n_rows - height + _leap_rows(height))
        self._set_height(top + height)
        self.scroll_to(y=top, animate=False, force=True, immediate=True)

    def _set_height(self, rows: int) -> None:
        # A new virtual size repaints everything, so it changes only where there is something to scroll.
        size = Size(MARGIN + self.columns, rows)
        if size != self.virtual_size:
            self.virtual_size = size

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if round(old_value) != round(new_value):  # everything in sight is painted anew
            self._rows.clear()
            self._seen.clear()
        self._following = self.n_rows <= round(new_value) + self.scrollable_content_region.height

    def render_line(self, y: int) -> Strip:
        y += self.scroll_offset.y
        if y not in self._rows:
            self._rows[y] = self._whole(y)
            self._seen[y] = cells_of(self._rows[y])
        return strip_of(self, self._rows[y], self.size.width)

    def on_resize(self, event: Resize) -> None:
        self.set_columns(self.columns)
        self._rows.clear()
        self._seen.clear()
        self._touched = True
        self._paint()
        self.refresh()


def _leap_rows(height: int) -> int:
    """How many empty rows a scroll leaves below the text."""
    return max(1, height // LEAP, min(height // 2, LEAP_ROWS))
