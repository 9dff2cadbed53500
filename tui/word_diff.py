"""What a text says otherwise than the one before it, word by word. Pure functions."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from tfm.tui.widgets.cells import Row, Span
from tfm.tui.widgets.wrap import wrap

# A word with the space after it; of scripts that put none between words, each character.
_UNIT = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]\s*|[^\s\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+\s*|\s+"
)


def word_diff(before: str | None, now: str) -> Row:
    """``now``, with what is new marked and what it replaced beside it: ``rennen (was: laufen)``.

    Without a text before it nothing is marked. Spaces alone make no difference.
    """
    if before is None or before.split() == now.split():
        return ((now, ""),)
    old, new = _UNIT.findall(before), _UNIT.findall(now)
    matcher = SequenceMatcher(None, [unit.strip() for unit in old], [unit.strip() for unit in new], False)
    spans: list[Span] = []
    for kind, begin, end, start, stop in matcher.get_opcodes():
        was, text = "".join(old[begin:end]).strip(), "".join(new[start:stop])
        bare = text.rstrip()
        space = text[len(bare) :]
        if kind == "equal":
            spans.append((text, ""))
        elif kind == "insert":
            spans += [(bare, "mark"), (space, "")]
        elif kind == "replace":
            spans += [(bare, "mark"), (f" (was: {was})", "dim"), (space or _gap(stop, new), "")]
        else:
            apart = "" if not spans or spans[-1][0].endswith(" ") else " "
            spans += [(f"{apart}(gone: {was})", "dim"), (_gap(stop, new), "")]
    return tuple(span for span in spans if span[0])


def _gap(at: int, units: list[str]) -> str:
    return " " if at < len(units) else ""


def wrapped(row: Row, columns: int) -> list[Row]:
    """A row broken into rows of at most ``columns`` cells, between words."""
    text = "".join(piece for piece, _ in row)
    rows: list[Row] = []
    for line in wrap(text, 0, max(1, columns)):
        spans: list[Span] = []
        place = 0
        for piece, style in row:
            start, end = max(line.start - place, 0), min(line.end - place, len(piece))
            if start < end:
                spans.append((piece[start:end], style))
            place += len(piece)
        if spans:  # spaces hang over the edge
            spans[-1] = (spans[-1][0].rstrip(" "), spans[-1][1])
        rows.append(tuple(spans))
    return rows
