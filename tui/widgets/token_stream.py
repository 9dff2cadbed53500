"""TokenStream: text that arrives token by token, painted with as few bytes as possible.

A Line API widget. Tokens may come at any rate: they are laid out at once (only the last row of
their paragraph) and painted once a frame, and only the cells that differ are sent to the terminal.
One paragraph is one lane, which is one line of the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import BindingType
from textual.events import Click
from textual.message import Message

from tfm.tui import confidence, keymap
from tfm.tui.safe_text import safe_text
from tfm.tui.widgets.cells import Row, graphemes
from tfm.tui.widgets.painted import MARGIN
from tfm.tui.widgets.searchable import SearchableRows
from tfm.tui.widgets.wrap import Paragraph

CURSOR = "▌"


class TokenStream(SearchableRows, can_focus=True):
    """Lanes of tokens, one of which may be selected."""

    BINDINGS: ClassVar[list[BindingType]] = [*keymap.TOKENS]
    KEYS_TITLE = "On the tokens"  # in the help

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
        self._looks: dict[tuple[int, int], str] = {}  # of tokens that the model was not sure of
        self._live: set[int] = set()  # lanes that are still being written
        self._placeholder: tuple[str, str] = ("", "dim")
        self._note = Paragraph(1)  # the placeholder, wrapped
        self._selected: tuple[int, int] | None = None

    # ------------------------------------------------------------------ content
    def begin(self, lanes: int) -> None:
        """Forget everything and wait for the first tokens of ``lanes`` lanes."""
        self._lanes = [Paragraph(self.columns) for _ in range(lanes)]
        self._live = set(range(lanes))
        self._marks.clear()
        self._looks.clear()
        self._selected = None
        self.touch(follow=True)

    def placeholder(self, text: str, style: str = "dim") -> None:
        """What stands here while there are no lanes."""
        if (text, style) != self._placeholder:
            self._placeholder = (text, style)
            self._note = Paragraph(self.columns)
            self._note.replace(safe_text(text, newlines=True))
            self.touch()

    def message(self, text: str, style: str = "bad") -> None:
        """Remove the lanes and show a sentence instead."""
        self._lanes, self._live, self._selected = [], set(), None
        self.placeholder(text, style)
        self.touch()

    def clear(self) -> None:
        """No lanes: the placeholder shows again."""
        self._lanes, self._live, self._selected = [], set(), None
        self._marks.clear()
        self.touch()

    def append(self, lane: int, piece: str, *, mark: bool = False, logprob: float | None = None) -> None:
        """One more token of a lane. ``mark``: it is the first one drawn under new settings."""
        paragraph = self._lanes[lane]
        self._note_token(lane, len(paragraph.starts), mark, logprob)
        paragraph.append(safe_text(piece, newlines=True))
        self.touch()

    def extend(self, lane: int, tokens: Sequence[tuple[str, bool, float]]) -> None:
        """Tokens that are there already: of each, piece, mark and logprob as in :meth:`append`."""
        paragraph = self._lanes[lane]
        first = len(paragraph.starts)
        for number, (_, mark, logprob) in enumerate(tokens, first):
            self._note_token(lane, number, mark, logprob)
        paragraph.extend([safe_text(piece, newlines=True) for piece, _, _ in tokens])
        self.touch()

    def _note_token(self, lane: int, number: int, mark: bool, logprob: float | None) -> None:
        """How a token is to look."""
        if look := confidence.look(logprob):
            self._looks[lane, number] = look
        if mark:
            self._marks.add((lane, number))

    def replace(self, lane: int, text: str) -> None:
        """Another text for a lane (beam search changes its mind)."""
        self._lanes[lane].replace(safe_text(text, newlines=True))
        self._looks.pop((lane, 0), None)
        self.touch()

    def finish(self, lane: int) -> None:
        """No more tokens in this lane: its cursor goes."""
        self._live.discard(lane)
        self.touch()

    def finish_all(self) -> None:
        self._live.clear()
        self.touch()

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
            self.touch()
            self.post_message(self.Selected(lane, token))
            if token is not None:
                row = self._first_row(lane) + self._lanes[lane].row_of_token(token)
                self.show_rows(row, row)

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
        row, column = event.y + self.scroll_offset.y, event.x - MARGIN
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
    def _first_row(self, lane: int) -> int:
        return sum(len(paragraph.rows) for paragraph in self._lanes[:lane])

    @property
    def n_rows(self) -> int:
        return self._first_row(len(self._lanes)) if self._lanes else len(self._note.rows)

    def row(self, y: int) -> Row:
        if not self._lanes:
            line = self._note.rows[y]
            return ((self._note.text[line.start : line.end], self._placeholder[1]),)
        for lane, paragraph in enumerate(self._lanes):
            if y < len(paragraph.rows):
                return self._row(lane, y)
            y -= len(paragraph.rows)
        raise IndexError(y)

    def in_margin(self, y: int) -> bool:
        if self._marks:
            for lane, paragraph in enumerate(self._lanes):
                if y < len(paragraph.rows):
                    return paragraph.begins_on(y, [token for at, token in self._marks if at == lane])
                y -= len(paragraph.rows)
        return False

    def set_columns(self, columns: int) -> None:
        for paragraph in (*self._lanes, self._note):
            paragraph.set_columns(columns)

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
        return self.marked(lane, line, paragraph, [span for span in spans if span[0]])

    def paragraphs(self) -> list[tuple[Paragraph, int]]:
        return [(paragraph, self._first_row(lane)) for lane, paragraph in enumerate(self._lanes)]

    def _style_of(self, lane: int, token: int) -> str:
        if self._selected == (lane, token):
            return "selected"
        if (lane, token) in self._marks:
            return "mark"
        return self._looks.get((lane, token), "") if self.confident else ""
