"""``train``, ``runs``, ``attach`` and ``stop``, with real trainers."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.cli.conftest import EXECUTABLE, Ran, Run
from tfm.train.event_log import EventLog
from tfm.train.events import (
    CheckpointSaved,
    CommandDone,
    Evaluated,
    Notice,
    RunEnded,
    RunStarted,
    Sample,
    Samples,
    Step,
)
from tfm.train.run_dir import RunDir, list_runs
from tfm.tui.commands.follow import BACKLOG, Printer

ENDLESS = ("--set", "loop.max_steps=1000000", "--set", "loop.save_every=1000000")


@pytest.fixture
def home(tiny_config: Path) -> Iterator[Path]:
    """Where the config's runs go; trainers that a test left are ended."""
    yield Path(os.environ["TFM_HOME"])
    for info in list_runs():
        owner = RunDir.open(info.run).owner()
        if owner is not None and owner.alive():
            os.kill(owner.pid, signal.SIGKILL)


def wait_for_step(run_id: str, step: int) -> None:
    deadline = time.monotonic() + 60
    while RunDir.open(run_id).info().step < step:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_train_shows_a_run_to_its_end(run: Run, tiny_config: Path, home: Path) -> None:
    ran = run("train", tiny_config, "--set", "loop.max_steps=12")
    assert ran.status == 0, ran.err
    [info] = list_runs()
    assert ran.err == f"run {info.run} in {info.path}; Ctrl+C leaves it running\n"
    lines = ran.out.splitlines()
    assert lines[0].startswith(f"run {info.run}: translation, ") and "12 steps" in lines[0]
    assert any(line.startswith("step 12/12 100 %") for line in lines)
    assert any("saved step-000012" in line for line in lines)
    assert lines[-1].startswith("finished at step 12")
    assert (info.state, info.step) == ("finished", 12)

    attached = run("attach", info.run)
    assert attached.status == 0
    assert attached.out.splitlines() == lines[-BACKLOG:]
    records = run("attach", info.run, "--json").records
    assert [record["seq"] for record in records] == list(range(len(records)))
    assert (records[0]["type"], records[-1]["type"]) == ("started", "ended")

    resumed = run("train", "--resume", info.run, "--set", "loop.max_steps=14", "--json")
    assert resumed.status == 0, resumed.err
    assert resumed.records[-1]["step"] == 14
    refused = run("stop", info.run)
    assert refused.status == 1
    assert "is not running: it is finished" in refused.err


def test_a_detached_run_is_listed_and_stopped(run: Run, tiny_config: Path, home: Path) -> None:
    started = run("train", tiny_config, "--detach", *ENDLESS)
    assert started.status == 0, started.err
    run_id = started.out.strip()
    assert f"tfm-tui stop {run_id}" in started.err
    wait_for_step(run_id, 3)
    [listed] = run("runs", "--json").records
    assert (listed["run"], listed["state"]) == (run_id, "running")
    assert run_id in run("runs").out and "running" in run("runs").out
    assert "did you mean" in run("stop", run_id[:-1]).err  # a near miss stops nothing

    stopped = run("stop", run_id, "--json")
    assert stopped.status == 0, stopped.err
    [record] = stopped.records
    assert record["state"] == "stopped"
    step = RunDir.open(run_id).info().step
    assert str(record["checkpoint"]).endswith(f"step-{step:06d}")  # it saved first
    translated = run("translate", "-m", record["checkpoint"], "a dog sees a man .")
    assert translated.status == 0, translated.err


def test_neither_ctrl_c_nor_the_loss_of_the_terminal_stops_a_run(
    run: Run, tiny_config: Path, home: Path
) -> None:
    watching = [*EXECUTABLE, "train", str(tiny_config), *ENDLESS]
    watcher = subprocess.Popen(
        watching, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert watcher.stdout
    while not watcher.stdout.readline().startswith(b"step "):
        assert watcher.poll() is None, watcher.stderr and watcher.stderr.read()
    os.killpg(watcher.pid, signal.SIGINT)
    _, err = watcher.communicate(timeout=60)
    assert watcher.returncode == 130
    [info] = list_runs()
    assert f"the run goes on; `tfm-tui attach {info.run}` shows it" in err.decode()
    assert info.state == "running"

    watching = [*EXECUTABLE, "attach", info.run]
    watcher = subprocess.Popen(watching, stdout=subprocess.PIPE, start_new_session=True)
    assert watcher.stdout and watcher.stdout.readline()
    os.killpg(watcher.pid, signal.SIGHUP)
    watcher.communicate(timeout=60)
    step = RunDir.open(info.run).info().step
    wait_for_step(info.run, step + 2)
    asked = run("stop", info.run, "--wait", "0")
    assert asked.status == 0 and "was asked to stop" in asked.err


def test_a_trainer_that_is_killed_is_a_no(run: Run, tiny_config: Path, home: Path) -> None:
    run_id = run("train", tiny_config, "--detach", *ENDLESS).out.strip()
    wait_for_step(run_id, 1)
    owner = RunDir.open(run_id).owner()
    assert owner is not None
    os.kill(owner.pid, signal.SIGKILL)
    while owner.alive():
        time.sleep(0.05)
    ran: Ran = run("attach", run_id)
    assert ran.status == 1
    assert "ended without saying why" in ran.err
    assert run("stop", run_id).status == 1
    assert run("runs", "--json").records[0]["state"] == "lost"


def test_no_runs_is_no_error(run: Run) -> None:
    ran = run("runs")
    assert (ran.status, ran.out) == (0, "")
    assert "tfm-tui train CONFIG" in ran.err
    assert run("runs", "--json").out == ""


def test_every_event_has_a_line() -> None:
    printer = Printer()
    started = RunStarted(
        run="r", objective="translation", n_parameters=5_400_000, total_steps=200, steps_per_epoch=100,
        device="cpu", precision="fp32",
    )  # fmt: skip
    step = Step(
        step=50, epoch=0.5, loss=2.0, nll=1.5, accuracy=0.5, grad_norm=1.0, learning_rate=1e-3, tokens=100,
        tokens_per_second=1000.0, seconds=10.0,
    )  # fmt: skip
    assert printer.lines(started) == ["run r: translation, 5.4M parameters, 200 steps, cpu fp32"]
    assert "ETA" not in printer.lines(step)[0]  # one report gives no rate
    later = msgspec.structs.replace(step, step=100, seconds=20.0)
    assert printer.lines(later) == [
        "step 100/200 50 %  epoch 0.50  loss 2.000  accuracy 0.500  grad 1.00  lr 1.00e-03  1,000 tok/s  "
        "ETA 0:00:20"
    ]
    assert printer.lines(
        Evaluated(step=1, loss=2.0, perplexity=7.4, accuracy=0.4, bleu=31.25, best=True)
    ) == ["  valid at 1: loss 2.000  perplexity 7.40  accuracy 0.400  BLEU 31.2  (best)"]
    scored = Evaluated(
        step=1, loss=2.0, perplexity=7.4, accuracy=0.4, bleu=31.25, chrf=50.0, cer=0.5, wer=0.75
    )
    assert printer.lines(scored)[0].endswith("BLEU 31.2  chrF 50.0  CER 0.50  WER 0.75")
    sample = Sample(source="a", reference="b", output="c")
    assert printer.lines(Samples(step=1, samples=(sample,))) == ["    a  ->  c"]
    assert printer.lines(CheckpointSaved(step=1, path="p", reason="best")) == ["  saved p (best)"]
    assert printer.lines(CommandDone(command_id="1", command="save")) == ["  save: done"]
    assert printer.lines(Notice(level="warning", message="slow")) == ["  warning: slow"]
    assert printer.lines(RunEnded(reason="failed", step=3, message="loss is NaN")) == [
        "failed at step 3: loss is NaN"
    ]


def test_a_run_that_failed_is_status_1(run: Run, tmp_path: Path) -> None:
    failed = RunDir.create('name = "x"', "x", tmp_path / "home" / "runs")
    with failed.lock():
        log = EventLog(failed)
        log.append(RunEnded(reason="failed", step=3, message="loss is NaN"))
        log.close()
    ran = run("attach", failed.id)
    assert (ran.status, ran.out) == (1, "failed at step 3: loss is NaN\n")
