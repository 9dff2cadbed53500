"""Transcript: the turns of a conversation, the last of which may still be growing."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from textual.binding import BindingType
from textual.events import Click
from textual.message import Message

from tfm.tui import confidence, keymap
from tfm.tui.safe_text import safe_text
from tfm.tui.widgets.cells import Row, fit, graphemes, width
from tfm.tui.widgets.painted import MARGIN
from tfm.tui.widgets.searchable import SearchableRows
from tfm.tui.widgets.wrap import Paragraph, wrap

CURSOR = "▌"
WIDEST = 100  # columns of text: longer lines are hard to read


class TurnView(NamedTuple):
    """A turn as it is shown."""

    label: str  # who speaks
    pieces: Sequence[str]  # of its tokens, or the text in one
    note: str = ""  # at the right end of its rule: which version, how it ended
    marks: frozenset[int] = frozenset()  # tokens that were the first under new settings
    live: bool = False  # it is being written
    left_out: bool = False  # the model does not see it any more
    looks: tuple[tuple[int, str], ...] = ()  # of tokens that the model was not sure of
    first: int = 0  # the first of its tokens that can be chosen; what is before them came in one piece


@dataclass
class _Block:
    """A turn as it is laid out: a rule, its text, a free row."""

    view: TurnView
    paragraph: Paragraph
    n_pieces: int
    marks: set[int]
    looks: dict[int, str]
    live: bool
    note: str

    @property
    def height(self) -> int:
        return len(self.paragraph.rows) + 2


class Transcript(SearchableRows, can_focus=True):
    """Shows turns. One of them may be chosen, and one of its tokens."""

    BINDINGS: ClassVar[list[BindingType]] = [*keymap.TURNS, *keymap.TOKENS]
    KEYS_TITLE = "On the turns"  # in the help

    class Chosen(Message):
        """Another turn or another token is chosen."""

    class Take(Message):
        """Put the rival of this rank in the place of the chosen token."""

        def __init__(self, rank: int) -> None:
            super().__init__()
            self.rank = rank

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._blocks: list[_Block] = []
        self._tops: list[int] = []  # the first row of each block
        self._hint: tuple[tuple[str, str], ...] = ()
        self._turn: int | None = None
        self._token: int | None = None

    # ------------------------------------------------------------------ content
    def show(self, turns: Sequence[TurnView]) -> None:
        """Show these turns. Those that are shown already, at the same place, stay as they are."""
        grown = len(turns) != len(self._blocks)
        for index, view in enumerate(turns):
            if index < len(self._blocks) and self._blocks[index].view == view:
                continue
            self._blocks[index : index + 1] = [self._lay_out(view)]
        del self._blocks[len(turns) :]
        self._count_from(0)
        if self._turn is not None and self._turn >= len(turns):
            self._turn = self._token = None
        self.touch(follow=grown and self._turn is None)

    def hint(self, paragraphs: Sequence[tuple[str, str]]) -> None:
        """What stands here while there are no turns: texts and their styles."""
        if tuple(paragraphs) != self._hint:
            self._hint = tuple(paragraphs)
            self.touch()

    def append(self, turn: int, piece: str, *, mark: bool = False, logprob: float | None = None) -> None:
        """One more token of a turn."""
        block = self._blocks[turn]
        if look := confidence.look(logprob):
            block.looks[block.n_pieces] = look
        if mark:
            block.marks.add(block.n_pieces)
        block.n_pieces += 1
        rows = len(block.paragraph.rows)
        block.paragraph.append(safe_text(piece, newlines=True))
        if len(block.paragraph.rows) != rows:
            self._count_from(turn)
        self.touch()

    def note(self, turn: int, note: str) -> None:
        """Other words at the right end of a turn's rule."""
        if self._blocks[turn].note != note:
            self._blocks[turn].note = note
            self.touch()

    def _lay_out(self, view: TurnView) -> _Block:
        paragraph = Paragraph(min(self.columns, WIDEST))
        paragraph.extend([safe_text(piece, newlines=True) for piece in view.pieces])
        view = view._replace(pieces=tuple(view.pieces))
        return _Block(
            view, paragraph, len(view.pieces), set(view.marks), dict(view.looks), view.live, view.note
        )

    # ------------------------------------------------------------------ choosing
    @property
    def turn(self) -> int | None:
        return self._turn

    @property
    def token(self) -> int | None:
        return self._token

    def choose(self, turn: int | None, token: int | None = None) -> None:
        """Mark a turn, or one of its tokens, and bring it into sight."""
        if (turn, token) == (self._turn, self._token):
            return
        self._turn, self._token = turn, token
        if turn is not None:
            top, block = self._tops[turn], self._blocks[turn]
            if token is None:
                self.show_rows(top, top + block.height - 2)
            else:
                row = top + 1 + block.paragraph.row_of_token(token)
                self.show_rows(row, row)
        self.touch()
        self.post_message(self.Chosen())

    def action_move(self, by: int) -> None:
        """Choose the turn ``by`` places on; from none, the last."""
        if not self._blocks:
            return
        last = len(self._blocks) - 1
        self.choose(last if self._turn is None else min(max(self._turn + by, 0), last))

    def action_walk(self, by: int) -> None:
        """Choose the token ``by`` places on in the chosen turn; from none, its last or first."""
        if not self._blocks:
            return
        turn = len(self._blocks) - 1 if self._turn is None else self._turn
        first, last = self._tokens(turn)
        if first > last:
            return
        begin = last if by < 0 else first
        self.choose(turn, begin if self._token is None else min(max(self._token + by, first), last))

    def action_edge(self, end: bool) -> None:
        """Choose the first or the last token of the chosen turn."""
        if self._blocks:
            turn = len(self._blocks) - 1 if self._turn is None else self._turn
            first, last = self._tokens(turn)
            if first <= last:
                self.choose(turn, last if end else first)

    def _tokens(self, turn: int) -> tuple[int, int]:
        """The first and the last token of a turn that can be chosen."""
        block = self._blocks[turn]
        return block.view.first, len(block.paragraph.starts) - 1

    def action_take(self, rank: int) -> None:
        self.post_message(self.Take(rank))

    def on_focus(self) -> None:
        if self._turn is None and self._blocks:
            self.choose(len(self._blocks) - 1)
        self.touch()

    def on_blur(self) -> None:
        self.touch()  # keys go elsewhere, so nothing is marked

    def on_click(self, event: Click) -> None:
        y = event.y + self.scroll_offset.y
        turn = bisect_right(self._tops, y) - 1
        if not 0 <= turn < len(self._blocks):
            return
        block, row, column = self._blocks[turn], y - self._tops[turn] - 1, event.x - MARGIN
        token: int | None = None
        if 0 <= row < len(block.paragraph.rows):
            line = block.paragraph.rows[row]
            index = line.start
            for character, wide in graphemes(block.paragraph.text[line.start : line.end]):
                if column < wide:
                    found = block.paragraph.token_at(index)
                    token = found if found >= block.view.first else None
                    break
                column -= wide
                index += len(character)
        self.choose(turn, token)

    # ------------------------------------------------------------------ rows
    @property
    def n_rows(self) -> int:
        if not self._blocks:  # a hint is read from its beginning
            return min(len(self._hint_rows()), self.scrollable_content_region.height)
        return self._tops[-1] + self._blocks[-1].height

    def set_columns(self, columns: int) -> None:
        for block in self._blocks:
            block.paragraph.set_columns(min(columns, WIDEST))
        self._count_from(0)

    def _count_from(self, turn: int) -> None:
        """Count anew where the blocks behind this one begin."""
        del self._tops[turn + 1 :]
        for index in range(len(self._tops), len(self._blocks)):
            self._tops.append(self._tops[-1] + self._blocks[index - 1].height if index else 0)

    def paragraphs(self) -> list[tuple[Paragraph, int]]:
        return [(block.paragraph, top + 1) for block, top in zip(self._blocks, self._tops, strict=True)]

    def _hint_rows(self) -> list[Row]:
        rows: list[Row] = []
        for text, style in self._hint:
            safe = safe_text(text)
            rows += [
                ((safe[line.start : line.end], style),) for line in wrap(safe, 0, min(self.columns, WIDEST))
            ]
        return rows

    def in_margin(self, y: int) -> bool:
        turn = bisect_right(self._tops, y) - 1
        if turn < 0 or not self._blocks[turn].marks:
            return False
        block, number = self._blocks[turn], y - self._tops[turn] - 1
        return block.paragraph.begins_on(number, block.marks)

    def row(self, y: int) -> Row:
        if not self._blocks:
            return self._hint_rows()[y]
        turn = bisect_right(self._tops, y) - 1
        block, number = self._blocks[turn], y - self._tops[turn] - 1
        if number < 0:
            return self._rule(turn, block)
        return self._text_row(turn, block, number) if number < len(block.paragraph.rows) else ()

    def _rule(self, turn: int, block: _Block) -> Row:
        here = turn == self._turn and self.has_focus
        label = (safe_text(block.view.label), "live" if here else "dim")
        columns = self.columns + 1
        left = fit((("▸▸ " if here else "── ", "live" if here else "line"), label, (" ", "")), columns)
        room = columns - width(left)
        note: Row = ()
        if block.note and room > 8:
            note = (*fit(((f" {safe_text(block.note)}", "dim"),), room - 3), (" ──", "line"))
        return (*left, ("─" * (room - width(note)), "line"), *note)

    def _text_row(self, turn: int, block: _Block, number: int) -> Row:
        """One row of a turn: runs of the tokens on it, and the cursor where it is being written."""
        paragraph = block.paragraph
        line = paragraph.rows[number]
        plain = "faint" if block.view.left_out else ""
        spans: list[tuple[str, str]] = []
        if (
            not (self._turn == turn and self.has_focus)
            and not block.marks
            and not (self.confident and block.looks)
        ):  # nothing to pick out: one run
            spans.append((paragraph.text[line.start : line.end], plain))
        else:
            spans += self._runs(turn, block, line.start, line.end, plain)
        last = number == len(paragraph.rows) - 1
        if block.live and last and line.cells <= paragraph.columns:
            spans.append((CURSOR, plain))  # in the colour of the text: another one doubles a token's bytes
        return self.marked(turn, line, paragraph, [span for span in spans if span[0]])

    def _runs(self, turn: int, block: _Block, start: int, end: int, plain: str) -> list[tuple[str, str]]:
        spans: list[tuple[str, str]] = []
        run, style, index = "", plain, start
        for character, _ in graphemes(block.paragraph.text[start:end]):
            token = block.paragraph.token_at(index)
            its_style = plain
            if turn == self._turn and token == self._token and self.has_focus:
                its_style = "selected"
            elif token in block.marks and not character.isspace():
                its_style = "mark"
            elif self.confident and not character.isspace():
                its_style = block.looks.get(token, plain)
            if its_style != style:
                spans.append((run, style))
                run, style = "", its_style
            run += character
            index += len(character)
        spans.append((run, style))
        return spans
