"""A run's log becomes figures, curves and an ETA."""

from __future__ import annotations

import pytest

from tfm.core.engine.protocol import Box, TrainerStats
from tfm.train import events
from tfm.tui import flops
from tfm.tui.machine import Machine
from tfm.tui.run_record import RunRecord, duration


def line(event: events.TrainEvent) -> str:
    return events.encode(event).decode()


def step(number: int, seq: int, time: float, loss: float | None = None) -> events.Step:
    return events.Step(
        seq=seq, time=time, step=number, epoch=number / 100, loss=5 - number / 1000 if loss is None else loss,
        nll=2.0, accuracy=0.5, grad_norm=1.0, learning_rate=1e-3, tokens=number * 10, tokens_per_second=100.0,
        seconds=time,
    )  # fmt: skip


def started(seq: int, resumed_from: int | None = None) -> events.RunStarted:
    return events.RunStarted(
        seq=seq, time=0.0, run="r", objective="translation", n_parameters=10, total_steps=1000,
        steps_per_epoch=100, device="cpu", precision="fp32", resumed_from=resumed_from,
    )  # fmt: skip


def record_of(*told: events.TrainEvent, run: str = "r") -> RunRecord:
    record = RunRecord(run)
    record.take([line(event) for event in told])
    return record


def test_progress_and_eta_of_the_whole_run() -> None:
    record = RunRecord("r")
    assert record.state == "starting" and record.eta is None
    record.take([line(started(0)), line(step(100, 1, 50.0)), line(step(200, 2, 100.0))])
    assert record.state == "running"
    assert record.progress == pytest.approx(0.2)
    assert record.eta == pytest.approx(400.0)
    assert record.epoch_progress == pytest.approx(0.0)
    assert record.curves["loss"] == [(100, 50.0, 1000, 4.9), (200, 100.0, 2000, 4.8)]
    assert record.curves["perplexity"][0].value == pytest.approx(7.389, abs=1e-3)  # e^2: smoothing left out


def test_lines_seen_twice_count_once_and_broken_ones_are_counted() -> None:
    record = RunRecord("r")
    lines = [line(started(0)), line(step(100, 1, 50.0))]
    record.take(lines)
    record.take([*lines, '{"type": "nonsense"}', "\x1b[31m", line(step(200, 2, 60.0))])
    assert len(record.curves["loss"]) == 2
    assert record.bad_lines == 2
    assert record.seq == 2


def test_an_evaluation_lies_where_the_run_was() -> None:
    held_out = events.Evaluated(seq=2, step=110, loss=3.0, perplexity=9.0, accuracy=0.4, bleu=12.0, cer=0.5)
    record = record_of(started(0), step(100, 1, 50.0), held_out)
    assert record.curves["bleu"] == [(110, pytest.approx(55.0), pytest.approx(1100.0), 12.0)]
    assert record.curves["val_perplexity"][0].value == 9.0 and record.curves["wer"] == []
    worse = events.Evaluated(seq=3, step=120, loss=4.0, perplexity=9.0, accuracy=0.4, bleu=11.0, cer=0.6)
    record.take([line(worse)])
    best = record.best("bleu"), record.best("val_loss"), record.best("cer")
    assert [point.value for point in best if point] == [12.0, 3.0, 0.5] and record.best("wer") is None


def test_a_resumed_run_forgets_what_it_does_anew() -> None:
    record = record_of(started(0), *(step(n * 100, n, n * 10.0) for n in range(1, 6)))
    record.take(
        [line(events.RunEnded(seq=6, reason="stopped", step=500)), line(started(7, resumed_from=300))]
    )
    assert record.ended is None and record.state == "running" and record.going_on
    assert [point.step for point in record.curves["loss"]] == [100, 200, 300]


def test_a_run_that_goes_back_takes_its_curves_with_it() -> None:
    record = record_of(started(0), *(step(n * 100, n, n * 10.0) for n in range(1, 6)))
    record.take(
        [line(events.RolledBack(seq=6, step=200, from_step=500, path="step-000200", message="spike"))]
    )
    assert record.step_number == 200 and record.progress == pytest.approx(0.2)
    assert [point.step for point in record.curves["loss"]] == [100, 200]
    assert "500" in record.news and "spike" in record.news and record.news_level == "warning"


def test_pause_and_the_end() -> None:
    record = record_of(started(0), events.CommandDone(seq=1, command_id="a", command="pause"))
    assert record.state == "paused"
    record.take([line(events.CommandDone(seq=2, command_id="b", command="resume"))])
    assert record.state == "running"
    record.take([line(events.RunEnded(seq=3, reason="finished", step=1000))])
    assert record.state == "finished" and record.step_number == 1000 and record.eta is None
    assert not record.going_on


def test_a_loss_that_is_no_number_breaks_nothing() -> None:
    record = record_of(started(0), step(100, 1, 50.0))
    record.take([line(step(200, 2, 60.0)).replace('"nll":2.0', '"nll":9999.0')])
    assert record.curves["perplexity"][-1].value == float("inf")


def test_durations_read_as_people_write_them() -> None:
    assert duration(3723) == "1:02:03"
    assert duration(90061) == "1 d 1:01:01"


# --------------------------------------------------------------------------- the machine
def test_mfu_is_six_flops_a_parameter_and_token_over_the_peak() -> None:
    assert flops.model_flops(1_000_000, 1000.0) == 6e9
    assert flops.mfu(10_000_000, 500_000.0, "NVIDIA H100 80GB HBM3", "bf16") == pytest.approx(3e13 / 989e12)
    assert flops.mfu(10_000_000, 500_000.0, "NVIDIA H100 PCIe", "fp32") == pytest.approx(3e13 / 51e12)
    two = flops.mfu(10_000_000, 500_000.0, "NVIDIA A100-SXM4-80GB", "bf16", n_devices=2)
    assert two == pytest.approx(3e13 / 624e12)


@pytest.mark.parametrize(
    "device",
    [
        "cpu, 8 threads",
        "NVIDIA RTX A1000",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA A100 MIG 1g.5gb",
        "T400",
    ],
)
def test_a_device_whose_peak_is_not_known_has_no_mfu(device: str) -> None:
    assert flops.mfu(1, 1.0, device, "bf16") is None


def test_the_load_is_what_was_used_between_two_looks() -> None:
    machine, box = Machine(), Box(id=0, cpu_percent=50.0, memory_used=10, memory_total=16_000_000_000)
    assert machine.figures() == []

    def trainer(pid: int, used: float, at: float) -> TrainerStats:
        return TrainerStats(id=0, pid=pid, memory=2_500_000_000, cpu_seconds=used, at=at)

    machine.take(box, trainer(7, 10.0, 100.0))
    assert dict(machine.figures()) == {"memory": "2.5 of 16.0 GB", "cpu": "-", "machine": "50 %", "gpu": "-"}
    machine.take(box, trainer(7, 13.0, 102.0))
    assert machine.load == pytest.approx(150.0)
    machine.take(box, trainer(8, 1.0, 104.0))  # another process: nothing to compare with
    assert machine.load is None


def test_what_a_card_says_is_shown_and_the_rest_left_out() -> None:
    card = {"name": "X", "utilisation": 93, "memory_used": 41e9, "memory_total": 80e9, "temperature": 61}
    box = Box(id=0, cpu_percent=5.0, memory_used=1, memory_total=2, gpus=(card, {}), cpu_temperature=48.4)
    machine = Machine()
    machine.take(box, None)
    figures = dict(machine.figures())
    assert figures["gpu 0"] == "93 % 41/80.0 GB 61 °C" and figures["gpu 1"] == "-"
    assert figures["machine"] == "5 % 48 °C"
