"""Rows of growing paragraphs in which words can be found and are marked."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tfm.tui.search import Match, find, overlay
from tfm.tui.widgets.cells import Row, Span
from tfm.tui.widgets.painted import PaintedRows
from tfm.tui.widgets.wrap import Line, Paragraph


class SearchableRows(PaintedRows):
    """A subclass gives its paragraphs, and passes each row of text through :meth:`marked`."""

    _pattern: re.Pattern[str] | None = None
    _here: Match | None = None

    def paragraphs(self) -> Sequence[tuple[Paragraph, int]]:
        """Each paragraph and the row on which it begins."""
        raise NotImplementedError

    def search(self, pattern: re.Pattern[str] | None) -> None:
        """Mark every match of the pattern; None: mark nothing any more."""
        self._pattern, self._here = pattern, None
        self.touch()

    def matches(self) -> list[Match]:
        return find(self._pattern, [paragraph.text for paragraph, _ in self.paragraphs()])

    def show_match(self, match: Match | None) -> None:
        """Mark this one more strongly than the others, and bring it into sight."""
        self._here = match
        if match is not None:
            paragraph, top = self.paragraphs()[match.text]
            row = top + sum(1 for line in paragraph.rows[1:] if line.start <= match.start)
            self.show_rows(row, row)
        self.touch()

    def marked(self, number: int, line: Line, paragraph: Paragraph, spans: Sequence[Span]) -> Row:
        """A row's spans, with the matches on it marked."""
        if self._pattern is None:
            return tuple(spans)
        found = [Match(number, *one.span()) for one in self._pattern.finditer(paragraph.text)]
        on_it = [match for match in found if match.start < line.end and match.end > line.start]
        return overlay(spans, line.start, on_it, self._here)
