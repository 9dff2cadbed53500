"""Rows of styled cells and the difference between two of them: what must be painted again."""

from __future__ import annotations

from functools import lru_cache

from rich.cells import cell_len, split_graphemes

Span = tuple[str, str]  # a piece of text and the name of its style ("" is the widget's own)
Row = tuple[Span, ...]
JOINER = "\u200d"  # at the beginning of a text the painting library lets it swallow what follows
Cells = list[Span]  # one entry a cell; the right half of a wide character is ("", style)


def graphemes(text: str) -> list[tuple[str, int]]:
    """The characters as a reader sees them, each with its width in cells.

    A leading combining mark or joiner stands alone with width 0; a line feed always does.
    """
    if text.isascii():
        return [(character, 0 if character == "\n" else 1) for character in text]
    found: list[tuple[str, int]] = []
    for number, line in enumerate(text.split("\n")):
        if number:
            found.append(("\n", 0))
        letters = line.lstrip(JOINER)
        if letters != line:
            found.append((line[: len(line) - len(letters)], 0))
        spans, _ = split_graphemes(letters)
        for start, end, wide in spans:
            letter = letters[start:end]
            if _letter_of_flag(letter[:1]) and found and _letter_of_flag(found[-1][0]):
                found[-1] = (found[-1][0] + letter, found[-1][1] + wide)  # two make a flag
            else:
                found.append((letter, wide))
    return found


@lru_cache(4096)
def stands_alone(character: str) -> bool:
    """May a row break on either side of it, as with an ideogram? Told by how it begins, so that what comes
    later (the other half of a flag, a selector that makes it an emoji) does not change the answer."""
    return not character.isascii() and (cell_len(character[0]) == 2 or _letter_of_flag(character[0]))


def _letter_of_flag(character: str) -> bool:
    return len(character) == 1 and "\U0001f1e6" <= character <= "\U0001f1ff"


def width(row: Row) -> int:
    return sum(cell_len(text.lstrip(JOINER)) for text, _ in row)


def cells_of(row: Row) -> Cells:
    """One entry a cell. Characters of width 0 join the cell before them."""
    cells: Cells = []
    for text, style in row:
        for character, wide in graphemes(text):
            if wide == 0 and cells:
                before, its_style = cells[-1]
                cells[-1] = (before + character, its_style)
            elif wide > 0:
                cells.append((character, style))
                cells.extend(("", style) for _ in range(wide - 1))
    return cells


def changed(old: Cells, new: Cells) -> tuple[int, int] | None:
    """First and past-the-last cell that differ, or None; cells past an end count as blank."""
    longest = max(len(old), len(new))
    blank = (" ", "")
    first = 0
    common = min(len(old), len(new))
    while first < common and old[first] == new[first]:
        first += 1
    if first == longest:
        return None
    last = longest
    while last > first and _at(old, last - 1, blank) == _at(new, last - 1, blank):
        last -= 1
    if last <= first:
        return None
    # never begin or end inside a wide character
    while first > 0 and (_at(old, first, blank)[0] == "" or _at(new, first, blank)[0] == ""):
        first -= 1
    while last < longest and (_at(old, last, blank)[0] == "" or _at(new, last, blank)[0] == ""):
        last += 1
    return first, last


def _at(cells: Cells, index: int, blank: Span) -> Span:
    return cells[index] if index < len(cells) else blank


def fit(row: Row, columns: int) -> Row:
    """The row cut to ``columns`` cells, with an ellipsis where something is missing."""
    if width(row) <= columns:
        return row
    out: list[Span] = []
    left = columns - 1
    for text, style in row:
        kept = ""
        for character, wide in graphemes(text):
            if wide > left:
                return (*out, (kept, style), ("…", style)) if columns > 0 else ()
            kept += character
            left -= wide
        out.append((kept, style))
    return tuple(out)


def spread(left: Row, right: Row, columns: int) -> Row:
    """``left`` and ``right`` at the two ends of a line; the left one is cut first."""
    room = columns - width(right)
    if room < 1:
        return fit(right, columns)
    left = fit(left, room)
    return (*left, (" " * (room - width(left)), ""), *right)
