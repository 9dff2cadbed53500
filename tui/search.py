"""Finding words in texts: a plain search, which minds capitals only where the query has some."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from tfm.tui.widgets.cells import Span


class Match(NamedTuple):
    """Where a query stands: in which text, from which character to which."""

    text: int
    start: int
    end: int


def pattern_of(query: str) -> re.Pattern[str]:
    """Any white space of the query stands for any white space of the text."""
    words = r"\s+".join(re.escape(word) for word in query.split())
    return re.compile(words, 0 if query != query.lower() else re.IGNORECASE)


def find(pattern: re.Pattern[str] | None, texts: Sequence[str]) -> list[Match]:
    """Every match, in the order of reading."""
    if pattern is None or not pattern.pattern:
        return []
    return [Match(n, *found.span()) for n, text in enumerate(texts) for found in pattern.finditer(text)]


def overlay(
    spans: Sequence[Span], first: int, matches: Sequence[Match], here: Match | None
) -> tuple[Span, ...]:
    """The spans of a row that begins at character ``first`` of its text, with its matches marked."""
    if not matches:
        return tuple(spans)
    marked: list[Span] = []
    index = first
    for text, style in spans:
        cuts = {index, index + len(text)}
        for match in matches:
            cuts |= {at for at in (match.start, match.end) if index < at < index + len(text)}
        for begin, end in zip(sorted(cuts), sorted(cuts)[1:], strict=False):
            inside = next((match for match in matches if match.start <= begin < match.end), None)
            look = style if inside is None else ("found_here" if inside == here else "found")
            marked.append((text[begin - index : end - index], look))
        index += len(text)
    return tuple(marked)
