"""Curves: smoothing, axes, windows, scales, lines that differ without colour, and files of them."""

from __future__ import annotations

import csv
import io
import xml.etree.ElementTree as ElementTree

import msgspec
import pytest

from tests.tui.test_run_record import record_of, started, step
from tfm.train import events
from tfm.tui import curves
from tfm.tui.curve_export import to_csv, to_svg, write_files
from tfm.tui.curves import BY_ID, View
from tfm.tui.run_record import Point, RunRecord
from tfm.tui.widgets.braille import MARKS, PATTERNS, Scale, Series, plot, row_of, sample, scale
from tfm.tui.widgets.drawing import drawing_of


def run(name: str = "r", count: int = 50) -> RunRecord:
    """Loss falls, an evaluation every ten steps."""
    told: list[events.TrainEvent] = [started(0)]
    for n in range(1, count + 1):
        told.append(step(n, len(told), n * 2.0, loss=10.0 / n))
        if n % 10 == 0:
            told.append(
                events.Evaluated(
                    seq=len(told), step=n, loss=12.0 / n, perplexity=5.0, accuracy=0.3, bleu=n * 0.5
                )
            )
    return record_of(*told, run=name)


# --------------------------------------------------------------------------- smoothing and thinning
def test_smoothing_is_a_moving_average_without_a_pull_to_zero() -> None:
    assert curves.smooth([3.0, 1.0, 2.0], 0.0) == [3.0, 1.0, 2.0]
    assert curves.smooth([5.0] * 30, 0.9) == pytest.approx([5.0] * 30)
    one, two = curves.smooth([4.0, 8.0], 0.5)
    assert one == pytest.approx(4.0)
    assert two == pytest.approx((0.25 * 4.0 + 0.5 * 8.0) / 0.75)
    assert curves.smooth([1.0, float("nan"), 1.0], 0.5)[-1] == pytest.approx(1.0)


def test_a_window_is_smoothed_as_the_whole_is() -> None:
    points = [Point(n, n, n, float(n % 7)) for n in range(5000)]
    whole = curves.pairs(points, View(), (0, 4999), 0.95)
    part = curves.pairs(points, View(), (4000, 4100), 0.95)
    assert part[0][0] == 3999 and part[-1][0] == 4101  # one beyond each edge leads the line there
    assert [y for _, y in part] == pytest.approx([y for _, y in whole[3999:4102]], abs=5e-3)


def test_downsampling_keeps_ends_order_and_level() -> None:
    points = [(float(n), float(n % 7)) for n in range(10_000)]
    few = curves.downsample(points, 120)
    assert len(few) <= 120
    assert few[-1] == points[-1]
    assert [x for x, _ in few] == sorted(x for x, _ in few)
    assert sum(y for _, y in few) / len(few) == pytest.approx(3.0, abs=0.2)
    assert curves.downsample(points[:50], 120) == points[:50]


# --------------------------------------------------------------------------- the view
def test_zoom_follows_the_newest_point_until_it_is_panned() -> None:
    extent = (0.0, 1000.0)
    view = curves.zoom(View(), 1, extent)
    assert curves.window(view, extent) == (500.0, 1000.0)
    assert curves.window(view, (0.0, 1200.0)) == (700.0, 1200.0)  # the run went on
    view = curves.pan(view, -0.5, extent)
    assert curves.window(view, extent) == (250.0, 750.0)
    assert curves.window(view, (0.0, 1200.0)) == (250.0, 750.0)  # it stays where one looks
    closer = curves.zoom(view, 1, extent)
    assert curves.window(closer, extent) == (375.0, 625.0)
    assert curves.window(curves.pan(closer, -9, extent), extent) == (0.0, 250.0)
    assert curves.pan(closer, 9, extent).right is None
    assert curves.window(curves.newest(closer), extent) == (750.0, 1000.0)
    assert curves.zoom(closer, -2, extent) == View()
    assert curves.zoom(View(), 1, extent, least=600.0) == View()
    assert curves.pan(View(), -1, extent) == View()


def test_axes_splits_and_smoothings_go_round() -> None:
    view = View(width=5.0, right=3.0)
    over_time = curves.turn_axis(view)
    assert (over_time.axis, over_time.width, over_time.right) == ("seconds", None, None)
    assert curves.turn_axis(curves.turn_axis(over_time)).axis == "step"
    assert curves.turn_split(curves.turn_split(curves.turn_split(view))) == view
    assert curves.turn_smoothing(view, -1).smoothing == 0.0
    assert curves.turn_smoothing(curves.turn_smoothing(view, 1), 99).smoothing == curves.SMOOTHINGS[-1]
    assert curves.turn_log(view).described() == ["log", "zoomed"]


def test_the_same_curve_over_steps_time_and_tokens() -> None:
    record = run()
    for axis, last in (("step", 50.0), ("seconds", 100.0), ("tokens", 500.0)):
        view = msgspec.structs.replace(View(), axis=axis)
        across = curves.extent_of([record], view.axis)
        assert across[1] == last
        assert curves.pairs(record.curves["loss"], view, across)[-1] == (last, 0.2)
    assert curves.axis_label(3723, "seconds") == "1:02:03" and curves.axis_label(2e6, "tokens") == "2.0M"


def test_only_curves_with_points_are_offered_and_those_that_say_most_come_first() -> None:
    record = run()
    there = [kind.id for kind in curves.available([record])]
    assert "bleu" in there and "chrf" not in there
    assert [kind.id for kind in curves.suggested([record], 2)] == ["loss", "bleu"]
    assert [kind.id for kind in curves.available([RunRecord("new")])] == ["loss"]


# --------------------------------------------------------------------------- plots
def text_of(series: list[Series], rows: int = 5, columns: int = 20) -> list[str]:
    """A plot of 0 to 9 both ways."""
    spans = plot(series, columns, rows, (0, 9), Scale(0, 9, ()))
    return ["".join(part for part, _ in row) for row in spans]


def test_a_rising_line_rises() -> None:
    text = text_of([Series([(0, 0), (9, 9)], "live")], columns=10)
    assert all(len(row) == 10 for row in text)
    assert text[0].strip() and text[0].rstrip() == text[0]  # the top right
    assert text[-1][0] != " "  # the bottom left


def test_lines_differ_without_colour() -> None:
    flat = [text_of([Series([(0, 5), (9, 5)], "", pattern)], columns=40) for pattern in PATTERNS]
    assert len({tuple(text) for text in flat}) == len(PATTERNS)
    assert len({sample(pattern, mark, "")[0] for pattern, mark in zip(PATTERNS, MARKS, strict=True)}) == len(
        MARKS
    )


def test_marks_stand_on_points_and_never_crowd() -> None:
    rows = text_of([Series([(0, 0), (4, 9), (9, 0)], "", mark="●")])
    assert rows[0].count("●") == 1 and rows[-1].count("●") == 2
    crowded = text_of([Series([(n / 10, 5.0) for n in range(90)], "", mark="●")])
    assert 2 <= "".join(crowded).count("●") <= 5


def test_what_lies_beyond_the_window_is_not_drawn() -> None:
    rows = text_of([Series([(-100, 0), (5, 5), (100, 9)], "", mark="●")])
    assert all(len(row) == 20 for row in rows) and "".join(rows).count("●") == 1


def test_scales_hold_their_values_and_ticks_fall_on_rows() -> None:
    for values, rows in (([1.8, 7.3], 20), ([0.1, 0.75], 3), ([5.0], 10), ([0.0004, 0.005], 12)):
        for log in (False, True):
            up = scale(values, rows, log)
            assert up.low <= min(values) and up.high >= max(values)
            assert up.ticks and all(0 <= row_of(tick, rows, up) < rows for tick in up.ticks)


def test_on_a_log_axis_equal_ratios_are_equal_distances() -> None:
    up = scale([0.01, 100.0], 40, log=True)
    assert up.share(1.0) == pytest.approx(0.5)
    assert [row_of(value, 40, up) for value in (100.0, 10.0, 1.0, 0.1)] == [0, 10, 19, 29]
    assert set(up.ticks) >= {0.01, 0.1, 1.0, 10.0, 100.0}


def test_one_run_tells_training_from_validation_and_several_tell_runs_apart() -> None:
    record, other = run("a"), run("b", 30)
    alone = drawing_of(BY_ID["loss"], [record], View(), (1, 50), 100)
    trained, held_out = alone.series
    assert (trained.pattern, trained.mark) != (held_out.pattern, held_out.mark)
    assert "0.200" in "".join(text for text, _ in alone.figures)
    both = drawing_of(BY_ID["loss"], [record, other], View(), (1, 50), 100)
    assert len(both.series) == 4 and len({(one.style, one.pattern) for one in both.series}) == 2
    only = drawing_of(BY_ID["loss"], [record, other], View(split="validation"), (1, 50), 100)
    assert len(only.series) == 2 and all(one.mark for one in only.series)


# --------------------------------------------------------------------------- files
def test_csv_holds_every_point_exactly() -> None:
    record = run('a, "quoted"')
    rows = list(csv.DictReader(io.StringIO(to_csv([record, run("b")], [BY_ID["loss"], BY_ID["bleu"]]))))
    mine = [row for row in rows if row["run"] == record.run]
    assert len(mine) == 50 + 5 + 5 and {row["curve"] for row in mine} == {"loss", "bleu"}
    trained = [row for row in mine if row["split"] == "train"]
    assert [float(row["value"]) for row in trained] == [point.value for point in record.curves["loss"]]
    assert trained[-1]["step"] == "50" and float(trained[-1]["seconds"]) == 100.0


def test_svg_is_well_formed_whatever_a_run_is_called() -> None:
    hostile = run('<script>alert("x")</script>\x1b]52;&')
    picture = to_svg([hostile, run("b")], [BY_ID["loss"], BY_ID["bleu"]], View(log=True, smoothing=0.9))
    root = ElementTree.fromstring(picture)
    lines = [node for node in root.iter() if node.tag.endswith("polyline")]
    assert len(lines) == 2 * (2 + 1) + 2  # train and validation loss, BLEU, of each; and the legend
    assert len({(line.get("stroke"), line.get("stroke-dasharray")) for line in lines}) == 2
    assert not [node for node in root.iter() if node.tag.endswith("script")] and "\x1b" not in picture
    assert "smoothed 0.9" in picture and "loss" in picture


def test_an_empty_run_is_exported_too() -> None:
    empty = RunRecord("new")
    assert to_csv([empty], list(curves.KINDS)).count("\n") == 1
    assert "no point yet" in to_svg([empty], [BY_ID["loss"]], View())


def test_files_are_written_whole_or_refused_with_a_sentence(tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    assert write_files(folder / "a.b", {".csv": "x\n", ".svg": "y\n"}).endswith("a.b.csv and a.b.svg")
    assert (folder / "a.b.csv").read_text() == "x\n"
    with pytest.raises(ValueError, match="cannot be written"):
        write_files(folder / "no" / "where", {".csv": ""})
