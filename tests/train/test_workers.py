"""Several processes as one run, from outside: started by one command, steered, killed, resumed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.train.corpora import of
from tfm.core.checkpoint import verify_checkpoint
from tfm.train import events
from tfm.train.event_log import EventReader
from tfm.train.events import AnyTrainEvent, CheckpointSaved, Notice, RunEnded, RunStarted, Step
from tfm.train.launch import command, is_alive, start_detached, stop
from tfm.train.run_dir import RunDir, RunLocked

ENDLESS = {"loop.max_steps": "1000000", "loop.save_every": "5"}


def told(run: RunDir) -> list[AnyTrainEvent]:
    reader, found = EventReader(run.events_path), list[AnyTrainEvent]()
    while lines := reader.poll():
        found += map(events.decode, lines)
    assert reader.bad_lines == 0
    assert [event.seq for event in found] == list(range(len(found)))
    return found


def until(true: Callable[[], object], seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def workers(run: RunDir) -> list[psutil.Process]:
    """The processes that train, by rank."""
    owner = run.owner()
    assert owner is not None
    children = psutil.Process(owner.pid).children()
    return sorted(children, key=lambda child: int(child.environ()["RANK"]))


def step_of(run: RunDir) -> int:
    return max((step.step for step in of(Step, told(run))), default=0)


@pytest.fixture
def started(tiny_config: Path) -> Iterator[RunDir]:
    run = start_detached(tiny_config, ENDLESS, nproc=2)
    yield run
    if (owner := run.owner()) is not None and owner.alive():
        os.kill(owner.pid, signal.SIGKILL)
    until(lambda: not run.is_locked())


def test_one_that_is_killed_ends_the_run_with_its_checkpoint(started: RunDir) -> None:
    until(lambda: len(started.checkpoints()) >= 1)
    owner, trainers = started.owner(), workers(started)
    assert owner is not None and len(trainers) == 2
    with pytest.raises(RunLocked):
        start_detached(None, resume=started.id, nproc=2)
    os.killpg(owner.pid, signal.SIGHUP)  # the terminal is gone: nobody minds
    before = step_of(started)
    until(lambda: step_of(started) > before)
    assert command(started, "pause").ok  # or what is gone back to may be let go of meanwhile
    there = int(started.checkpoints()[0].name[5:])
    for name, arguments in (("learning_rate", {"value": 1e-5}), ("save", {}), ("rollback", {"step": there}),
                            ("learning_rate", {"value": 2.0}), ("resume", {})):  # fmt: skip
        done = command(started, name, arguments)
        assert done.ok == (arguments != {"value": 2.0}), done
    trainers[1].kill()
    until(lambda: not started.is_locked())
    ended = told(started)[-1]
    assert isinstance(ended, RunEnded) and ended.reason == "failed" == started.state()
    assert "process 1 of 2 died without a word" in ended.message
    assert not any(trainer.is_running() for trainer in trainers)
    newest = started.checkpoints()[-1]
    verify_checkpoint(newest)

    start_detached(None, resume=started.id, nproc=2)
    until(lambda: len(of(RunStarted, told(started))) == 2)
    assert of(RunStarted, told(started))[1].resumed_from == int(newest.name[5:])
    trainers = workers(started)
    trainers[0].kill()  # the one that writes the log
    until(lambda: not started.is_locked())
    ended = told(started)[-1]
    assert isinstance(ended, RunEnded) and ended.reason == "failed"
    assert "process 0 of 2 was killed (SIGKILL)" in ended.message
    assert not any(trainer.is_running() for trainer in trainers)
    verify_checkpoint(started.checkpoints()[-1])


@pytest.mark.slow
def test_who_starts_them_takes_them_along_and_a_stop_saves(started: RunDir) -> None:
    until(lambda: len(started.checkpoints()) >= 1)
    trainers = workers(started)
    os.kill(started.owner().pid, signal.SIGKILL)  # type: ignore[union-attr]
    until(lambda: not any(trainer.is_running() for trainer in trainers))
    until(lambda: not started.is_locked())
    assert started.state() == "lost"
    start_detached(None, resume=started.id, nproc=3)
    until(lambda: len(of(RunStarted, told(started))) == 2)
    assert of(RunStarted, told(started))[1].processes == 3
    said = "was written by 2 processes and goes on with 3 processes"
    until(lambda: any(said in notice.message for notice in of(Notice, told(started))))
    os.kill(started.owner().pid, signal.SIGTERM)  # type: ignore[union-attr]
    until(lambda: not is_alive(started))
    saved, ended = told(started)[-2:]
    assert isinstance(saved, CheckpointSaved) and saved.reason == "stop"
    assert isinstance(ended, RunEnded) and ended.reason == "stopped"
    start_detached(None, resume=started.id, nproc=2)
    assert stop(started, timeout=600).reason == "stopped"  # sent before they have begun, and not lost


@pytest.mark.slow
def test_a_bad_corpus_is_one_sentence(tiny_config: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.de").write_text("too short\n")
    with pytest.raises(ValueError, match=r"pairs\.en has 25 lines but .*pairs\.de has 1"):
        run = start_detached(tiny_config, nproc=2)
        until(lambda: not is_alive(run))
        ended = told(run)[-1]
        assert isinstance(ended, RunEnded)
        raise ValueError(ended.message)  # it took longer to start than we wait for it


def torchrun(config: Path, *arguments: str) -> list[str]:
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
        "tfm.tui.cli", "train", str(config), *arguments,
    ]  # fmt: skip


@pytest.mark.slow
def test_under_torchrun(tiny_config: Path) -> None:
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(torchrun(tiny_config), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "in 2 processes" in done.stdout and "finished at step 30" in done.stdout
    run_id = re.findall(r"^run (\S+):", done.stdout, re.MULTILINE)[0]
    assert RunDir.open(run_id).state() == "finished"

    endless = [f"--set={key}={value}" for key, value in ENDLESS.items()]
    process = subprocess.Popen(
        torchrun(tiny_config, *endless),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    run_id = next(found[1] for line in process.stdout if (found := re.match(r"run (\S+):", line)))
    run = RunDir.open(run_id)
    until(lambda: len(run.checkpoints()) > 0)
    ranks = {
        int(child.environ()["RANK"]): child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "RANK" in child.environ()
    }
    ranks[1].kill()
    process.communicate()
    assert process.returncode != 0
    ended = told(run)[-1]
    assert isinstance(ended, RunEnded) and "process 1 of 2 died without a word" in ended.message
    assert run.state() == "failed"
    verify_checkpoint(run.checkpoints()[-1])
