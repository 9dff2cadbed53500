"""A run's log becomes figures, curves and an ETA."""

from __future__ import annotations

import pytest

from tfm.train import events
from tfm.tui.run_record import RunRecord, downsample, duration
from tfm.tui.widgets.braille import Scale, Series, plot, row_of, scale


def line(event: events.TrainEvent) -> str:
    return events.encode(event).decode()


def step(number: int, seq: int, time: float) -> events.Step:
    return events.Step(
        seq=seq, time=time, step=number, epoch=number / 100, loss=5 - number / 1000, nll=4.0, accuracy=0.5,
        grad_norm=1.0, learning_rate=1e-3, tokens=number * 10, tokens_per_second=100.0, seconds=time,
    )  # fmt: skip


def started(seq: int, resumed_from: int | None = None) -> events.RunStarted:
    return events.RunStarted(
        seq=seq, time=0.0, run="r", objective="translation", n_parameters=10, total_steps=1000,
        steps_per_epoch=100, device="cpu", precision="fp32", resumed_from=resumed_from,
    )  # fmt: skip


def test_progress_and_eta_of_the_whole_run() -> None:
    record = RunRecord("r")
    assert record.state == "starting" and record.eta is None
    record.take([line(started(0)), line(step(100, 1, 50.0)), line(step(200, 2, 100.0))])
    assert record.state == "running"
    assert record.progress == pytest.approx(0.2)
    assert record.eta == pytest.approx(400.0)
    assert record.epoch_progress == pytest.approx(0.0)
    assert record.curves["loss"] == [(100.0, 4.9), (200.0, 4.8)]


def test_lines_seen_twice_count_once_and_broken_ones_are_counted() -> None:
    record = RunRecord("r")
    lines = [line(started(0)), line(step(100, 1, 50.0))]
    record.take(lines)
    record.take([*lines, '{"type": "nonsense"}', "\x1b[31m", line(step(200, 2, 60.0))])
    assert len(record.curves["loss"]) == 2
    assert record.bad_lines == 2
    assert record.seq == 2


def test_a_resumed_run_forgets_what_it_does_anew() -> None:
    record = RunRecord("r")
    record.take([line(started(0))] + [line(step(n * 100, n, n * 10.0)) for n in range(1, 6)])
    record.take(
        [line(events.RunEnded(seq=6, reason="stopped", step=500)), line(started(7, resumed_from=300))]
    )
    assert record.ended is None and record.state == "running"
    assert [x for x, _ in record.curves["loss"]] == [100.0, 200.0, 300.0]


def test_a_run_that_goes_back_takes_its_curves_with_it() -> None:
    record = RunRecord("r")
    record.take([line(started(0))] + [line(step(n * 100, n, n * 10.0)) for n in range(1, 6)])
    record.take(
        [line(events.RolledBack(seq=6, step=200, from_step=500, path="step-000200", message="spike"))]
    )
    assert record.step_number == 200 and record.progress == pytest.approx(0.2)
    assert [x for x, _ in record.curves["loss"]] == [100.0, 200.0]
    assert "500" in record.news and "spike" in record.news and record.news_level == "warning"


def test_pause_and_the_end() -> None:
    record = RunRecord("r")
    record.take([line(started(0)), line(events.CommandDone(seq=1, command_id="a", command="pause"))])
    assert record.state == "paused"
    record.take([line(events.CommandDone(seq=2, command_id="b", command="resume"))])
    assert record.state == "running"
    record.take([line(events.RunEnded(seq=3, reason="finished", step=1000))])
    assert record.state == "finished" and record.step_number == 1000 and record.eta is None


def test_downsampling_keeps_ends_order_and_level() -> None:
    points = [(float(n), float(n % 7)) for n in range(10_000)]
    few = downsample(points, 120)
    assert len(few) <= 120
    assert few[-1] == points[-1]
    assert [x for x, _ in few] == sorted(x for x, _ in few)
    assert sum(y for _, y in few) / len(few) == pytest.approx(3.0, abs=0.2)
    assert downsample(points[:50], 120) == points[:50]


def test_durations_read_as_people_write_them() -> None:
    assert duration(3723) == "1:02:03"
    assert duration(90061) == "1 d 1:01:01"


def test_a_rising_line_rises() -> None:
    rows = plot([Series([(0, 0), (9, 9)], "live")], 10, 5, (0, 9), Scale(0, 9, ()))
    text = ["".join(part for part, _ in row) for row in rows]
    assert all(len(row) == 10 for row in text)
    assert text[0].strip() and text[0].rstrip() == text[0]  # the top right
    assert text[-1][0] != " "  # the bottom left


def test_scales_hold_their_values_and_ticks_fall_on_rows() -> None:
    for values, rows in (([1.8, 7.3], 20), ([0.1, 0.75], 3), ([5.0], 10), ([0.0004, 0.005], 12)):
        up = scale(values, rows)
        assert up.low <= min(values) and up.high >= max(values)
        assert up.ticks and all(0 <= row_of(tick, rows, up) < rows for tick in up.ticks)
