"""A text under the eye of a model: one row a token, how likely it was, and how sure the model was there."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import ClassVar

from rich.cells import cell_len
from textual.binding import BindingType
from textual.events import Click
from textual.message import Message

from tfm.core.engine.protocol import ScoredToken
from tfm.tui import keymap
from tfm.tui.safe_text import safe_text
from tfm.tui.widgets.cells import Row, Span, fit
from tfm.tui.widgets.lines import Lines
from tfm.tui.widgets.painted import PaintedRows
from tfm.tui.widgets.token_panel import visible_piece
from tfm.tui.widgets.wrap import Line, wrap

_PIECE = 13  # cells
_BAR = 8.0  # nats of surprise that fill the bar
_WIDE = 56  # columns from which on there is room for numbers and log p


class TableHead(Lines):
    """The names of the columns; they stay where they are when the rows scroll."""

    def build(self, columns: int) -> Sequence[Sequence[Span]]:
        wide = columns - 1 >= _WIDE  # the table keeps one column free
        number, log, bar = ("   # ", " log p", "  surprise") if wide else ("", "", "")
        return [((f"  {number}{'token':<{_PIECE}}   prob{log}    rank     H{bar}", "faint"),)]


class TokenTable(PaintedRows, can_focus=True):
    """Scored tokens, one of which is chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [*keymap.LOOK]
    KEYS_TITLE = "On the tokens"  # in the help

    class Chosen(Message):
        """Another token is chosen."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._tokens: tuple[ScoredToken, ...] = ()
        self._note = ("", "faint")
        self._here = 0

    def show(self, tokens: tuple[ScoredToken, ...]) -> None:
        """Other tokens; the choice stays at its place where there is one."""
        self._tokens = tokens
        self._here = min(self._here, max(len(tokens) - 1, 0))
        self.touch()
        self.show_rows(self._here, self._here)

    def say(self, sentence: str, style: str = "faint") -> None:
        """Nothing to show, and why."""
        self._tokens, self._note = (), (safe_text(sentence), style)
        self.touch()

    @property
    def here(self) -> int:
        return self._here

    @property
    def token(self) -> ScoredToken | None:
        return self._tokens[self._here] if self._tokens else None

    def choose(self, number: int) -> None:
        number = min(max(number, 0), max(len(self._tokens) - 1, 0))
        if number != self._here:
            self._here = number
            self.touch()
            self.show_rows(number, number)
            self.post_message(self.Chosen())

    # ------------------------------------------------------------------ keys
    def action_move(self, by: int) -> None:
        self.choose(self._here + by)

    def action_page(self, by: int) -> None:
        self.choose(self._here + by * max(1, self.scrollable_content_region.height - 1))

    def action_edge(self, end: bool) -> None:
        self.choose(len(self._tokens) if end else 0)

    def action_surprise(self, by: int) -> None:
        """The next token that was not the model's first choice, around the end if need be."""
        n = len(self._tokens)
        order = [(self._here + by * step) % n for step in range(1, n + 1)] if n else []
        self.choose(next((number for number in order if self._tokens[number].rank > 1), self._here))

    def on_click(self, event: Click) -> None:
        self.choose(event.y + self.scroll_offset.y)

    def on_focus(self) -> None:
        self.touch()

    def on_blur(self) -> None:
        self.touch()

    # ------------------------------------------------------------------ painting
    @property
    def n_rows(self) -> int:
        return len(self._tokens) or len(self._wrapped())

    def _wrapped(self) -> list[Line]:
        return wrap(self._note[0], 0, self.columns)

    def set_columns(self, columns: int) -> None:
        pass  # no row depends on another one's width

    def row(self, y: int) -> Row:
        if not self._tokens:
            line = self._wrapped()[y]
            return ((self._note[0][line.start : line.end], self._note[1]),)
        token, here = self._tokens[y], y == self._here
        piece = visible_piece(token.piece)
        if cell_len(piece) > _PIECE:
            piece = fit(((piece, ""),), _PIECE)[0][0]
        first = token.rank == 1
        style = "live" if here else ("" if first else "strong")
        wide = self.columns >= _WIDE
        room = max(0, self.columns - _PIECE - (36 if wide else 25))
        bar = "▇" * min(room, round(-token.logprob / _BAR * room))
        spans: Row = (
            ("▸ " if here else "  ", "live"),
            (f"{y + 1:>4} " if wide else "", "faint"),
            (piece, style), (" " * (_PIECE - cell_len(piece)), ""),
            (f"{exp(token.logprob):7.3f}", style),
            (f"{token.logprob:6.2f}" if wide else "", "dim"),
            (f"{token.rank:>8,}", "dim" if first else "strong"),
            (f"{token.entropy:6.2f}  ", "dim"), (bar, "second"),
        )  # fmt: skip
        return fit(spans, self.columns)
