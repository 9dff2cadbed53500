"""Lines drawn in braille: eight dots a cell, so a small plot still shows a shape. Pure functions.

Lines are told apart by colour, and where there is none by their pattern of dots and by the marks
that stand on their points.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, floor, log10
from typing import NamedTuple

from tfm.tui.widgets.cells import Span

Point = tuple[float, float]
PATTERNS = ("1", "111100", "1000", "111111001000", "1111111111110000", "11000000")  # dots along the line
MARKS = "●▲■◆○△"
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # [row][column] of a cell
_EMPTY = 0x2800
_APART = 4  # cells between two marks of one line, at the least


class Scale(NamedTuple):
    """What the edges of a plot stand for, and the values that get a label."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def share(self, value: float) -> float:
        """0 at the lower edge, 1 at the upper one; what lies beyond is drawn on them."""
        value = min(max(value, self.low), self.high)
        if self.high <= self.low:
            return 0.0
        if self.log:
            return log10(value / self.low) / log10(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


class Series(NamedTuple):
    """Points in order of x, how their line is drawn, and the mark on each of them ("": none)."""

    points: Sequence[Point]
    style: str
    pattern: str = PATTERNS[0]
    mark: str = ""


def scale(values: Sequence[float], rows: int, log: bool = False) -> Scale:
    """Edges at the least and the greatest value, and ticks on round numbers between them.

    Where there are too few rows for round numbers the two edges are the ticks. A logarithmic scale
    needs values above zero.
    """
    low, high = min(values), max(values)
    if high <= low:
        high = low + (abs(low) or 1.0) * 0.1
    if rows < 8:
        return Scale(low, high, (low, high), log)
    if log:
        return Scale(low, high, _log_ticks(low, high, rows // 3), log)
    step = _round_step((high - low) / (rows / 3))
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return Scale(low, high, tuple(i * step for i in range(first, last + 1)))


def _log_ticks(low: float, high: float, most: int) -> tuple[float, ...]:
    """Powers of ten, with 2 and 5 or all digits between them where there is room; else the edges."""
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    for digits in (tuple(range(1, 10)), (1, 2, 5), (1,)):
        ticks = tuple(d * 10.0**e for e in decades for d in digits if low <= d * 10.0**e <= high)
        if len(ticks) <= most:
            return ticks if len(ticks) > 1 else (low, high)
    return (low, high)


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below ``least``."""
    unit: float = 10.0 ** floor(log10(least))
    return next(unit * m for m in (1, 2, 5, 10) if unit * m >= least * (1 - 1e-9))


def plot(
    series: Sequence[Series], columns: int, rows: int, across: tuple[float, float], up: Scale
) -> list[list[Span]]:
    """Rows of spans, ``columns`` cells wide. Points beyond the left or right edge only lead a line there.

    Where two series meet in a cell, the later one gives the colour.
    """
    bits = [[0] * columns for _ in range(rows)]
    styles = [[""] * columns for _ in range(rows)]
    marks: dict[tuple[int, int], tuple[str, str]] = {}
    wide, tall = columns * 2 - 1, rows * 4 - 1
    left, right = across
    for one in series:
        places = [(_place(x, left, right, wide), tall - round(up.share(y) * tall)) for x, y in one.points]
        for number, (x, y) in enumerate(_line(places)):
            if 0 <= x <= wide and one.pattern[number % len(one.pattern)] == "1":
                bits[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
                styles[y // 4][x // 2] = one.style
        if one.mark:
            last = -_APART
            for x, y in places:
                if 0 <= x <= wide and x // 2 - last >= _APART:
                    last = x // 2
                    marks[y // 4, last] = (one.mark, one.style)
    cells = [[chr(_EMPTY + b) if b else " " for b in row] for row in bits]
    for (y, x), (mark, style) in marks.items():
        cells[y][x], styles[y][x] = mark, style
    return [_runs(cell_row, style_row) for cell_row, style_row in zip(cells, styles, strict=True)]


def sample(pattern: str, mark: str, style: str, cells: int = 4) -> Span:
    """A piece of line for a legend."""
    line = Series([(0, 0.5), (1, 0.5)], style, pattern)
    text = "".join(part for part, _ in plot([line], cells, 1, (0, 1), Scale(0, 1, ()))[0])
    return (text[: cells // 2] + mark + text[cells // 2 + 1 :] if mark else text, style)


def row_of(value: float, rows: int, up: Scale) -> int:
    """The row that a value falls on, from the top."""
    tall = rows * 4 - 1
    return (tall - round(up.share(value) * tall)) // 4


def _place(value: float, low: float, high: float, last: int) -> int:
    return round((value - low) / (high - low) * last) if high > low else 0


def _line(places: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Every dot on the way from each place to the next."""
    dots = list(places[:1])
    for (x, y), (to_x, to_y) in pairwise(places):
        steps = max(abs(to_x - x), abs(to_y - y), 1)
        dots += [
            (round(x + (to_x - x) * i / steps), round(y + (to_y - y) * i / steps))
            for i in range(1, steps + 1)
        ]
    return dots


def _runs(characters: Sequence[str], styles: Sequence[str]) -> list[Span]:
    """Neighbours of one style as one span."""
    spans: list[Span] = []
    for character, style in zip(characters, styles, strict=True):
        if spans and spans[-1][1] == style:
            spans[-1] = (spans[-1][0] + character, style)
        else:
            spans.append((character, style))
    return spans
