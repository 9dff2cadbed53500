"""Trainers that are killed, raced and cut off from their terminal: nothing that was committed is lost."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pexpect
import pytest

from tfm.core.checkpoint import verify_checkpoint
from tfm.train import events, launch
from tfm.train.event_log import EventReader
from tfm.train.events import AnyTrainEvent, CheckpointSaved, RunStarted, Step
from tfm.train.launch import start_detached, stop
from tfm.train.resolve import resolve_config, to_toml
from tfm.train.run_dir import RunDir, RunLocked, list_runs

ENDLESS = {"loop.max_steps": "1000000"}


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def kill(run: RunDir) -> None:
    owner = run.owner()
    if owner is not None and owner.alive():
        os.kill(owner.pid, signal.SIGKILL)
    until(lambda: not run.is_locked())


def told(run: RunDir) -> list[AnyTrainEvent]:
    reader, found = EventReader(run.events_path), list[AnyTrainEvent]()
    while lines := reader.poll():
        found += map(events.decode, lines)
    return found


def last_step(run: RunDir) -> int:
    return max((event.step for event in told(run) if isinstance(event, Step)), default=0)


def test_a_closed_terminal_does_not_stop_the_trainer(tiny_config: Path) -> None:
    code = (
        "import sys, time; from tfm.train.launch import start_detached;"
        f"start_detached(sys.argv[1], {ENDLESS}); print('started', flush=True); time.sleep(600)"
    )
    terminal = pexpect.spawn(sys.executable, ["-c", code, str(tiny_config)], timeout=60)
    terminal.expect("started")
    (info,) = list_runs()
    run = RunDir.open(info.run)
    owner = run.owner()
    assert owner is not None
    try:
        os.killpg(os.getpgid(terminal.pid), signal.SIGHUP)
        os.killpg(owner.pid, signal.SIGHUP)
        terminal.close(force=True)
        before = last_step(run)
        until(lambda: last_step(run) > before, 10)
        assert owner.alive()
        assert stop(run).reason == "stopped"
    finally:
        kill(run)


def test_of_twenty_simultaneous_starts_one_trains(tiny_config: Path) -> None:
    run = start_detached(tiny_config)
    until(lambda: run.state() == "finished")

    def start(_: int) -> str:
        try:
            start_detached(None, ENDLESS, resume=run.id)
        except RunLocked as error:
            return str(error)
        return "trains"

    try:
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(start, range(20)))
        owner = run.owner()
        assert owner is not None and owner.alive()
        assert answers.count("trains") == 1
        refused = [answer for answer in answers if answer != "trains"]
        assert all(f"already being trained by {owner}" in answer for answer in refused), set(refused)
        until(lambda: len([event for event in told(run) if isinstance(event, RunStarted)]) == 2)
    finally:
        kill(run)


@pytest.mark.parametrize("n_kills", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_kills_while_saving_leave_every_committed_checkpoint_whole(tiny_config: Path, n_kills: int) -> None:
    """Trainers are forked from a process that has loaded torch, so that a hundred starts take no hour."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tfm.train.loop"])
    overrides = ENDLESS | {"loop.save_every": "1", "loop.keep_last": "3"}  # nearly always saving
    run = RunDir.create(to_toml(resolve_config(tiny_config, overrides)), "tiny")
    chance, n_torn, newest = random.Random(1), 0, 0
    for number in range(n_kills):
        trainer = processes.Process(target=launch.main, args=([str(run.path)],))
        trainer.start()
        try:
            if number % 10 != 9:  # of ten kills one hits the start
                until(lambda at=newest + 1: last_step(run) > at)  # type: ignore[misc]
            time.sleep(chance.uniform(0.0, 0.3))
        finally:
            trainer.kill()
            trainer.join()
        assert trainer.exitcode == -signal.SIGKILL
        assert run.state() == "lost" or number % 10 == 9
        n_torn += any(run.path.glob(".tmp-step-*"))
        starts = [event for event in told(run) if isinstance(event, RunStarted)]
        if number and number % 10 != 9:
            assert starts[-1].resumed_from == newest  # what was the newest when the last one was killed
        committed = run.checkpoints()
        assert len(committed) >= 2 or number == 0
        for folder in committed:
            verify_checkpoint(folder)
        newest = int(committed[-1].name.removeprefix("step-"))
        said = [event.step for event in told(run) if isinstance(event, CheckpointSaved)]
        assert newest >= said[-1]  # nothing that was told as saved is gone
    print(f"{n_kills} kills, {n_torn} of them in the middle of a checkpoint; {newest} steps")
    assert n_torn >= n_kills // 20
    for event in launch.run_foreground(None, {"loop.max_steps": str(newest + 2)}, resume=run.path):
        if isinstance(event, RunStarted):
            assert event.resumed_from == newest
    assert not list(run.path.glob(".tmp-*"))
