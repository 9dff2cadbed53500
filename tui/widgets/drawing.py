"""What one plot shows of several runs: lines, marks and newest figures. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from tfm.tui.curves import CurveKind, Pair, View, downsample, pairs
from tfm.tui.run_record import RunRecord
from tfm.tui.widgets.braille import MARKS, PATTERNS, Series
from tfm.tui.widgets.cells import Row, Span
from tfm.tui.widgets.curve import Drawing


def drawing_of(
    kind: CurveKind, records: Sequence[RunRecord], view: View, across: Pair, points: int
) -> Drawing:
    """One run: training is a line, validation a dashed one with marks. Several: a line each, and marks
    on the evaluations. ``points`` is how many of a series there is room for."""
    alone = len(records) == 1
    series: list[Series] = []
    figures: list[Span] = []
    for number, record in enumerate(records):
        style = f"run{number + 1}"
        trained = _seen(
            record, kind.trained, view, across, points, view.smoothing, view.split != "validation"
        )
        held_out = _seen(record, kind.held_out, view, across, points, 0.0, view.split != "train")
        both = bool(trained) and bool(held_out)
        if trained:
            series.append(Series(trained, style, PATTERNS[number]))
        if held_out:
            dashed = PATTERNS[1] if alone and both else PATTERNS[number]
            series.append(Series(held_out, "second" if alone and both else style, dashed, MARKS[number]))
        figures += _figures(kind, record, number, alone, bool(trained), bool(held_out))
    return Drawing(
        title=kind.title,
        figures=tuple(figures),
        series=tuple(series),
        across=across,
        axis=view.axis,
        log=view.log and kind.log,
        settle=kind.settle,
    )


def _seen(
    record: RunRecord, name: str, view: View, across: Pair, points: int, smoothing: float, wanted: bool
) -> list[Pair]:
    if not name or not wanted:
        return []
    return downsample(pairs(record.curves[name], view, across, smoothing), points)


def _figures(
    kind: CurveKind, record: RunRecord, number: int, alone: bool, trained: bool, held_out: bool
) -> Row:
    """The newest values, each beside what its line looks like."""
    spans: list[Span] = []
    if alone:
        if trained:
            newest = record.curves[kind.trained][-1].value
            spans += [("   train " if held_out else "   ", "dim"), (format(newest, kind.form), "live")]
        if held_out:
            newest = record.curves[kind.held_out][-1].value
            spans += [(f"   val {MARKS[0]} " if trained else "   ", "dim")]
            spans += [(format(newest, kind.form), "second" if trained else "live")]
            best = record.best(kind.held_out)
            if best is not None and not trained:
                spans.append((f"   best {format(best.value, kind.form)}", "dim"))
        return tuple(spans)
    name = kind.held_out if held_out else kind.trained if trained else ""
    if name:
        value = format(record.curves[name][-1].value, kind.form)
        spans.append((f"  {MARKS[number]} {value}", f"run{number + 1}"))
    return tuple(spans)
