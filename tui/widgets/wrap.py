"""Wrapping of a text that is still growing: only its last row is ever laid out again.

Greedy wrapping has the property that makes this right: where a row breaks depends only on the text
up to the word that did not fit, so appended text can change the last row and nothing before it.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tfm.tui.widgets.cells import graphemes, stands_alone


class Line(NamedTuple):
    """One row: characters ``start`` to ``end`` of the text, ``cells`` wide (hanging spaces included)."""

    start: int
    end: int
    cells: int


def wrap(text: str, start: int, columns: int) -> list[Line]:
    """Break ``text[start:]`` into rows of at most ``columns`` cells; there is always one row.

    Rows break after spaces (which hang over the edge), on either side of a wide character, at a
    line feed, and inside a word only where the word alone is wider than a row.
    """
    rows: list[Line] = []
    row_start, cells = start, 0
    chance: tuple[int, int] | None = None  # the last place this row may break: index, cells before it
    index = start
    for character, wide in graphemes(text[start:]):
        after = index + len(character)
        if character == "\n":
            rows.append(Line(row_start, index, cells))
            row_start, cells, chance = after, 0, None
        elif character == " ":
            cells += 1
            chance = (after, cells)
        else:
            alone = stands_alone(character)
            if alone and cells:
                chance = (index, cells)
            if cells and cells + wide > columns:
                if chance is not None and chance[0] > row_start:
                    rows.append(Line(row_start, chance[0], chance[1]))
                    row_start, cells = chance[0], cells - chance[1]
                if cells and cells + wide > columns:
                    rows.append(Line(row_start, index, cells))
                    row_start, cells = index, 0
                chance = None
            cells += wide
            if alone:
                chance = (after, cells)
        index = after
    rows.append(Line(row_start, len(text), cells))
    return rows


class Paragraph:
    """A growing text, its tokens and its rows."""

    def __init__(self, columns: int) -> None:
        self.columns = max(1, columns)
        self.text = ""
        self.starts: list[int] = []  # where each token begins in the text
        self.rows: list[Line] = wrap("", 0, self.columns)

    def append(self, piece: str) -> int:
        """Add one token. Returns the first row that may have changed."""
        self.starts.append(len(self.text))
        self.text += piece
        first = len(self.rows) - 1
        self.rows[first:] = wrap(self.text, self.rows[first].start, self.columns)
        return first

    def extend(self, pieces: Sequence[str]) -> None:
        """Add tokens that are there already, which is as if each were added by itself but laid out once."""
        starts = itertools.accumulate((len(piece) for piece in pieces), initial=len(self.text))
        self.starts.extend(itertools.islice(starts, len(pieces)))
        self.text += "".join(pieces)
        self.rows[-1:] = wrap(self.text, self.rows[-1].start, self.columns)

    def replace(self, text: str) -> None:
        """Put another text in place of this one, as a single token."""
        self.text, self.starts = text, [0] if text else []
        self.rows = wrap(text, 0, self.columns)

    def set_columns(self, columns: int) -> None:
        if columns != self.columns:
            self.columns = max(1, columns)
            self.rows = wrap(self.text, 0, self.columns)

    def token_at(self, index: int) -> int:
        """The number of the token that the character at ``index`` belongs to."""
        return bisect_right(self.starts, index) - 1

    def begins_on(self, number: int, tokens: Iterable[int]) -> bool:
        """Does one of these tokens begin on this row?"""
        if not 0 <= number < len(self.rows):
            return False
        start = self.rows[number].start
        end = self.rows[number + 1].start if number + 1 < len(self.rows) else len(self.text) + 1
        return any(token < len(self.starts) and start <= self.starts[token] < end for token in tokens)

    def row_of_token(self, token: int) -> int:
        """The row on which a token begins."""
        where = self.starts[token]
        return max(0, bisect_right([row.start for row in self.rows], where) - 1)
