"""Curves as files: every point as CSV, the picture as SVG. Pure functions, no widgets.

The SVG is written by hand: a few lines and words need no plotting library. Runs differ by colour and
by dashes, so that a print without colour can be read.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

from tfm.train.files import write_atomically
from tfm.tui.curves import (
    AXES,
    CurveKind,
    Pair,
    View,
    axis_label,
    extent_of,
    pairs,
    window,
)
from tfm.tui.run_record import RunRecord
from tfm.tui.safe_text import safe_text
from tfm.tui.widgets.braille import Scale, scale

COLUMNS = ("run", "curve", "split", "step", "seconds", "tokens", "value")
_COLOURS = ("#b36b00", "#2f5f93", "#3f7d3f", "#a8362c", "#6a4c93", "#555555")
_DASHES = ("", "9 4", "2 3", "12 3 2 3", "16 5", "4 6")
_WIDE, _TALL, _PLOT = 480, 300, (64, 34, 400, 216)  # a panel; left, top, width, height of its plot
_LEGEND = 22  # height of one of its lines
_SETTLED = 0.05


def rows(
    records: Sequence[RunRecord], kinds: Sequence[CurveKind]
) -> Iterator[tuple[str, str, str, int, float, int, float]]:
    """Every point, whatever the view: the fields of COLUMNS."""
    for record in records:
        for kind in kinds:
            for split, name in (("train", kind.trained), ("validation", kind.held_out)):
                for point in record.curves[name] if name else ():
                    place = (round(point.step), round(point.seconds, 3), round(point.tokens))
                    yield record.run, kind.id, split, *place, point.value


def to_csv(records: Sequence[RunRecord], kinds: Sequence[CurveKind]) -> str:
    """One row a point: run, curve, split, step, seconds, tokens, value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows(records, kinds))
    return out.getvalue()


def to_svg(records: Sequence[RunRecord], kinds: Sequence[CurveKind], view: View) -> str:
    """The curves as the view has them, a panel each, with a legend."""
    across = window(view, extent_of(records, view.axis))
    columns = min(2, len(kinds)) or 1
    wide, rows = columns * _WIDE, math.ceil(len(kinds) / columns)
    legend = _legend(records, view)
    tall = rows * _TALL + len(legend) * _LEGEND + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {tall}" width="{wide}" height="{tall}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="12">',
        f'<rect width="{wide}" height="{tall}" fill="#ffffff"/>',
    ]
    for number, kind in enumerate(kinds):
        x, y = number % columns * _WIDE, number // columns * _TALL
        parts.append(f'<g transform="translate({x} {y})">{_panel(records, kind, view, across)}</g>')
    for number, line in enumerate(legend):
        parts.append(f'<g transform="translate({_PLOT[0]} {rows * _TALL + number * _LEGEND})">{line}</g>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(records: Sequence[RunRecord], kind: CurveKind, view: View, across: Pair) -> str:
    left, top, wide, tall = _PLOT
    lines = [
        (run, split, points)
        for run, record in enumerate(records)
        for split, name, smoothing in (
            ("train", kind.trained, view.smoothing),
            ("validation", kind.held_out, 0.0),
        )
        if name and view.split in ("both", split)
        if (points := pairs(record.curves[name], view, across, smoothing))
    ]
    seen = [(x, y) for _, _, points in lines for x, y in points if across[0] <= x <= across[1]]
    title = f'<text x="{left}" y="22" font-size="14" font-weight="bold">{_text(kind.title)}</text>'
    if not seen:
        return title + f'<text x="{left}" y="{top + 24}" fill="#777777">no point yet</text>'
    settled = [y for x, y in seen if x >= across[0] + (across[1] - across[0]) * _SETTLED]
    values = settled if kind.settle and len(settled) > 10 else [y for _, y in seen]
    up = scale(values, 16, view.log and kind.log and min(values) > 0)

    def place(point: Pair) -> Pair:
        share = (point[0] - across[0]) / ((across[1] - across[0]) or 1.0)
        return left + share * wide, top + (1 - up.share(point[1])) * tall

    drawn = [_line(run, split, [place(point) for point in points]) for run, split, points in lines]
    clip = f'<svg x="{left}" y="{top - 4}" width="{wide + 4}" height="{tall + 8}" '
    clip += f'viewBox="{left} {top - 4} {wide + 4} {tall + 8}">{"".join(drawn)}</svg>'
    return title + _grid(up, kind, view, across) + clip


def _grid(up: Scale, kind: CurveKind, view: View, across: Pair) -> str:
    left, top, wide, tall = _PLOT
    parts = []
    for tick in up.ticks:
        y = top + (1 - up.share(tick)) * tall
        parts.append(f'<line x1="{left}" x2="{left + wide}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e4e4"/>')
        label = _text(format(tick, ".4g"))
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#555555">{label}</text>')
    bottom = top + tall
    parts.append(f'<path d="M{left} {top}V{bottom}H{left + wide}" fill="none" stroke="#888888"/>')
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        label = axis_label(across[0] + share * (across[1] - across[0]), view.axis)
        at = f'x="{left + share * wide:.0f}" y="{bottom + 18}" text-anchor="{anchor}"'
        parts.append(f'<text {at} fill="#555555">{_text(label)}</text>')
    parts.append(
        f'<text x="{left + wide}" y="22" text-anchor="end" fill="#777777">{_text(AXES[view.axis])}</text>'
    )
    return "".join(parts)


def _line(run: int, split: str, places: Sequence[Pair]) -> str:
    """Training is a line; validation is one with a dot on each evaluation."""
    colour = _COLOURS[run % len(_COLOURS)]
    dashes = _DASHES[run % len(_DASHES)]
    dash = f' stroke-dasharray="{dashes}"' if dashes else ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in _thinned(places))
    width = "1.4" if split == "train" else "2"
    line = f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"{dash}/>'
    if split == "validation":
        line += "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colour}"/>' for x, y in places)
    return line


def _thinned(places: Sequence[Pair]) -> list[Pair]:
    """Without the points that fall on the one before them, at a tenth of a pixel."""
    rounded = [(round(x, 1), round(y, 1)) for x, y in places]
    return rounded[:1] + [after for before, after in pairwise(rounded) if before != after]


def _legend(records: Sequence[RunRecord], view: View) -> list[str]:
    lines = []
    for number, record in enumerate(records):
        line = _line(number, "train", [(0.0, 8.0), (40.0, 8.0)])
        about = f"{record.run}, step {record.step_number:,}"
        lines.append(f'{line}<text x="50" y="12">{_text(about)}</text>')
    words = ["training is a line, validation has dots", *view.described()]
    return [*lines, f'<text x="0" y="12" fill="#777777">{_text(" · ".join(words))}</text>']


def _text(text: str) -> str:
    return escape(safe_text(text))


def write_files(stem: Path, files: dict[str, str]) -> str:
    """Write ``stem`` + suffix for each; what was there is replaced. Returns the names, for a person.

    Raises:
        ValueError: a sentence that says what cannot be written.
    """
    if not stem.name:
        raise ValueError("Type how the files' names begin, such as ./my-run.")
    written = []
    for suffix, text in files.items():
        path = stem.with_name(stem.name + suffix)
        try:
            write_atomically(path, text.encode())
        except OSError as error:
            raise ValueError(f"{path} cannot be written: {error.strerror}.") from None
        written.append(path)
    return " and ".join([str(written[0]), *(path.name for path in written[1:])])
