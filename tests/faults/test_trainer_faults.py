"""Trainers that are killed, raced and cut off from their terminal: nothing that was committed is lost."""

from __future__ import annotations

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
from tfm.train import events
from tfm.train.event_log import EventReader
from tfm.train.events import RunStarted, Step
from tfm.train.launch import start_detached, stop
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


def last_step(run: RunDir) -> int:
    lines = EventReader(run.events_path).poll()
    return max((event.step for event in map(events.decode, lines) if isinstance(event, Step)), default=0)


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
        starts = [
            e for e in map(events.decode, EventReader(run.events_path).poll()) if isinstance(e, RunStarted)
        ]
        assert len(starts) == 2
    finally:
        kill(run)


@pytest.mark.parametrize("n_kills", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_kills_while_saving_leave_every_committed_checkpoint_whole(tiny_config: Path, n_kills: int) -> None:
    chance = random.Random(1)
    overrides = ENDLESS | {"loop.save_every": "1", "loop.keep_last": "3"}  # nearly always saving
    run = start_detached(tiny_config, overrides)
    try:
        for _ in range(n_kills):
            until(lambda: len(run.checkpoints()) >= 2)
            time.sleep(chance.uniform(0.0, 0.3))
            kill(run)
            assert run.state() == "lost"
            committed = run.checkpoints()
            assert len(committed) >= 2
            for folder in committed:
                verify_checkpoint(folder)
            newest = int(committed[-1].name.removeprefix("step-"))
            assert newest >= last_step(run) - 1  # nothing that was told as saved is gone
            start_detached(None, resume=run.id)
            starts = [
                event
                for event in map(events.decode, EventReader(run.events_path).poll())
                if isinstance(event, RunStarted)
            ]
            assert starts[-1].resumed_from == newest
            assert not [
                entry for entry in run.path.glob(".tmp-old-*") if entry.stat().st_mtime < time.time() - 5
            ]
    finally:
        kill(run)
