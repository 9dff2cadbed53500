"""TokenStream: text that arrives token by token, painted with as few bytes as possible.

A Line API widget. Tokens may come at any rate: they are laid out at once (only the last row of
their paragraph) and painted once a frame, and only the cells that differ are sent to the terminal.
One paragraph is one lane, which is one line of the source.
"""

from __future__ import annotations

from typing import ClassVar

from textual import constants
from textual.binding import BindingType
from textual.events import Click, Resize
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.timer import Timer

from tfm.tui import keymap
from tfm.tui.safe_text import safe_text
from tfm.tui.widgets.cells import Cells, Row, cells_of, changed, graphemes
from tfm.tui.widgets.lines import strip_of
from tfm.tui.widgets.wrap import Paragraph

CURSOR = "▌"


class TokenStream(ScrollView, can_focus=True):
    """Lanes of tokens, one of which may be selected."""

    BINDINGS: ClassVar[list[BindingType]] = [*keymap.TOKENS]

    class Selected(Message):
        """Another token is selected, or none (``token`` is None)."""

        def __init__(self, lane: int, token: int | None) -> None:
            super().__init__()
            self.lane = lane
            self.token = token

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._lanes: list[Paragraph] = []
        self._marks: set[tuple[int, int]] = set()  # tokens that were the first under new settings
        self._live: set[int] = set()  # lanes that are still being written
        self._placeholder: tuple[str, str] = ("", "dim")
        self._selected: tuple[int, int] | None = None
        self._painted: list[Cells] = []
        self._strips: list[Row] = []
        self._dirty_from: int | None = None  # first row that may differ from what is painted
        self._frame: Timer | None = None

    # ------------------------------------------------------------------ content
    def begin(self, lanes: int) -> None:
        """Forget everything and wait for the first tokens of ``lanes`` lanes."""
        self._lanes = [Paragraph(self._columns) for _ in range(lanes)]
        self._live = set(range(lanes))
        self._marks.clear()
        self._selected = None
        self._touch(0)

    def placeholder(self, text: str, style: str = "dim") -> None:
        """What stands here while there are no lanes."""
        self._placeholder = (text, style)
        if not self._lanes:
            self._touch(0)

    def message(self, text: str, style: str = "bad") -> None:
        """Remove the lanes and show a sentence instead."""
        self._lanes, self._live, self._selected = [], set(), None
        self.placeholder(text, style)

    def append(self, lane: int, piece: str, *, mark: bool = False) -> None:
        """One more token of a lane. ``mark``: it is the first one drawn under new settings."""
        paragraph = self._lanes[lane]
        if mark:
            self._marks.add((lane, len(paragraph.starts)))
        self._touch(self._first_row(lane) + paragraph.append(safe_text(piece, newlines=True)))

    def replace(self, lane: int, text: str) -> None:
        """Another text for a lane (beam search changes its mind)."""
        self._lanes[lane].replace(safe_text(text, newlines=True))
        self._touch(self._first_row(lane))

    def finish(self, lane: int) -> None:
        """No more tokens in this lane: its cursor goes."""
        self._live.discard(lane)
        self._touch(self._first_row(lane) + len(self._lanes[lane].rows) - 1)

    def finish_all(self) -> None:
        for lane in sorted(self._live):
            self.finish(lane)

    @property
    def text(self) -> str:
        """What the lanes hold, one a line."""
        return "\n".join(paragraph.text for paragraph in self._lanes)

    # ------------------------------------------------------------------ selection
    @property
    def selected(self) -> tuple[int, int] | None:
        """(lane, token) or None."""
        return self._selected

    def select(self, lane: int, token: int | None) -> None:
        before = self._selected
        self._selected = None if token is None else (lane, token)
        if before != self._selected:
            self._touch(0)
            self.post_message(self.Selected(lane, token))
            if token is not None:
                row = self._first_row(lane) + self._lanes[lane].row_of_token(token)
                self.scroll_to_region(Region(0, row, 1, 1), animate=False)

    def action_walk(self, by: int) -> None:
        """Select the token ``by`` places on, across lanes."""
        order = [(lane, t) for lane, p in enumerate(self._lanes) for t in range(len(p.starts))]
        if not order:
            return
        if self._selected is None:
            self.select(*order[-1])
            return
        index = order.index(self._selected) + by
        self.select(*order[min(max(index, 0), len(order) - 1)])

    def action_edge(self, end: bool) -> None:
        """Select the first or the last token of all."""
        lanes = [lane for lane, paragraph in enumerate(self._lanes) if paragraph.starts]
        if lanes:
            lane = lanes[-1] if end else lanes[0]
            self.select(lane, len(self._lanes[lane].starts) - 1 if end else 0)

    def on_focus(self) -> None:
        if self._selected is None and not self._live:
            self.action_edge(True)

    def on_click(self, event: Click) -> None:
        row, column = event.y + self.scroll_offset.y, event.x
        for lane, paragraph in enumerate(self._lanes):
            if row < len(paragraph.rows):
                line = paragraph.rows[row]
                index = line.start
                for character, wide in graphemes(paragraph.text[line.start : line.end]):
                    if column < wide:
                        self.select(lane, paragraph.token_at(index))
                        return
                    column -= wide
                    index += len(character)
                return
            row -= len(paragraph.rows)

    # ------------------------------------------------------------------ painting
    @property
    def _columns(self) -> int:
        # one column stays free: the cursor stands there, and a scrollbar never makes rows wrap anew
        return max(1, self.scrollable_content_region.width - 1)

    def _first_row(self, lane: int) -> int:
        return sum(len(paragraph.rows) for paragraph in self._lanes[:lane])

    def _touch(self, row: int) -> None:
        """Rows from this one on may look different: paint them with the next frame."""
        self._dirty_from = row if self._dirty_from is None else min(row, self._dirty_from)
        if self._frame is None and self.is_mounted:
            self._frame = self.set_timer(1 / constants.MAX_FPS, self._paint)

    def _paint(self) -> None:
        """Compare the rows with what is on the screen and refresh the cells that differ."""
        self._frame = None
        first, self._dirty_from = self._dirty_from, None
        if first is None:
            return
        rows = self._build(first)
        old = self._painted[first:]
        at_end = self.scroll_offset.y >= self.max_scroll_y
        self._strips[first:] = rows
        self._painted[first:] = [cells_of(row) for row in rows]
        top, left = self.scroll_offset.y, self.scroll_offset.x
        for index in range(max(len(old), len(rows))):
            span = changed(
                old[index] if index < len(old) else [],
                self._painted[first + index] if index < len(rows) else [],
            )
            y = first + index - top
            if span is not None and 0 <= y < self.size.height:
                self.refresh(Region(span[0] - left, y, span[1] - span[0], 1))
        # A new virtual size repaints everything, so it changes only where there is something to scroll.
        size = Size(self._columns, max(len(self._painted), self.scrollable_content_region.height))
        if size != self.virtual_size:
            self.virtual_size = size
            if at_end and self._selected is None:
                self.scroll_end(animate=False)

    def _build(self, first: int) -> list[Row]:
        """The rows from ``first`` on, as spans."""
        rows: list[Row]
        if not self._lanes:
            text, style = self._placeholder
            note = Paragraph(self._columns)
            note.append(safe_text(text, newlines=True))
            rows = [((note.text[row.start : row.end], style),) for row in note.rows]
            return rows[first:]
        rows = []
        y = 0
        for lane, paragraph in enumerate(self._lanes):
            skip = max(0, first - y)
            rows.extend(self._row(lane, n) for n in range(skip, len(paragraph.rows)))
            y += len(paragraph.rows)
        return rows

    def _row(self, lane: int, number: int) -> Row:
        """One row of a lane: runs of the tokens on it, and the cursor where it is being written."""
        paragraph = self._lanes[lane]
        line = paragraph.rows[number]
        spans: list[tuple[str, str]] = []
        run, style = "", ""
        index = line.start
        for character, _ in graphemes(paragraph.text[line.start : line.end]):
            token = paragraph.token_at(index)
            lead = character == " " and token >= 0 and paragraph.starts[token] == index
            its_style = "" if lead else self._style_of(lane, token)
            if its_style != style:
                spans.append((run, style))
                run, style = "", its_style
            run += character
            index += len(character)
        spans.append((run, style))
        if lane in self._live and number == len(paragraph.rows) - 1 and line.cells <= paragraph.columns:
            spans.append((CURSOR, style))  # in the colour of the text: another one doubles a token's bytes
        return tuple(span for span in spans if span[0])

    def _style_of(self, lane: int, token: int) -> str:
        if self._selected == (lane, token):
            return "selected"
        return "mark" if (lane, token) in self._marks else ""

    def render_line(self, y: int) -> Strip:
        y += self.scroll_offset.y
        return strip_of(self, self._strips[y] if y < len(self._strips) else (), self.size.width)

    def on_resize(self, event: Resize) -> None:
        for paragraph in self._lanes:
            paragraph.set_columns(self._columns)
        self._dirty_from = 0
        self._paint()
        self.refresh()
