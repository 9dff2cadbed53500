"""Lines drawn in braille: eight dots a cell, so a small plot still shows a shape. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, floor, log10
from typing import NamedTuple

from tfm.tui.widgets.cells import Span

Point = tuple[float, float]
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # [row][column] of a cell
_EMPTY = 0x2800


class Scale(NamedTuple):
    """What the edges of a plot stand for, and the values that get a label."""

    low: float
    high: float
    ticks: tuple[float, ...]


class Series(NamedTuple):
    """Points in order of x. ``dashed`` tells two lines apart where there is no colour."""

    points: Sequence[Point]
    style: str
    dashed: bool = False


def scale(values: Sequence[float], rows: int) -> Scale:
    """Edges at the least and the greatest value, and ticks on round numbers between them.

    Where there are too few rows for round numbers the two edges are the ticks.
    """
    low, high = min(values), max(values)
    if high <= low:
        high = low + (abs(low) or 1.0) * 0.1
    if rows < 8:
        return Scale(low, high, (low, high))
    step = _round_step((high - low) / (rows / 3))
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return Scale(low, high, tuple(i * step for i in range(first, last + 1)))


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below ``least``."""
    unit: float = 10.0 ** floor(log10(least))
    return next(unit * m for m in (1, 2, 5, 10) if unit * m >= least * (1 - 1e-9))


def plot(
    series: Sequence[Series], columns: int, rows: int, across: tuple[float, float], up: Scale
) -> list[list[Span]]:
    """Rows of spans, ``columns`` cells wide. Values beyond an edge are drawn on it.

    Where two series meet in a cell, the later one gives the colour.
    """
    bits = [[0] * columns for _ in range(rows)]
    styles = [[""] * columns for _ in range(rows)]
    wide, tall = columns * 2 - 1, rows * 4 - 1
    left, right = across
    for points, style, dashed in series:
        places = [
            (
                _place(x, left, right, wide),
                tall - _place(min(max(y, up.low), up.high), up.low, up.high, tall),
            )
            for x, y in points
        ]
        for x, y in _line(places):
            if not (dashed and x % 6 >= 4):
                bits[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
                styles[y // 4][x // 2] = style
    return [
        _runs([chr(_EMPTY + b) if b else " " for b in bit_row], style_row)
        for bit_row, style_row in zip(bits, styles, strict=True)
    ]


def row_of(value: float, rows: int, up: Scale) -> int:
    """The row that a value falls on, from the top."""
    tall = rows * 4 - 1
    return (tall - _place(value, up.low, up.high, tall)) // 4


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
