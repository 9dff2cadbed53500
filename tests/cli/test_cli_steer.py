"""``steer``: every way to steer a run from a shell, with a real trainer, and what its log says of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tfm.train import events
from tfm.train.event_log import EventReader
from tfm.train.events import CommandDone
from tfm.train.run_dir import RunDir, list_runs

ENDLESS = ("--set", "loop.max_steps=1000000", "--set", "loop.save_every=1000000")


@pytest.fixture
def home(tiny_config: Path) -> Iterator[Path]:
    """Where the config's runs go; trainers that a test left are ended."""
    yield Path(os.environ["TFM_HOME"])
    for info in list_runs():
        owner = RunDir.open(info.run).owner()
        if owner is not None and owner.alive():
            os.kill(owner.pid, signal.SIGKILL)


def test_every_action_is_done_and_acknowledged_in_the_log(run: Run, tiny_config: Path, home: Path) -> None:
    run_id = run("train", tiny_config, "--detach", *ENDLESS).out.strip()
    directory = RunDir.open(run_id)

    assert run("steer", run_id, "pause").out == "pause: done\n"
    assert directory.state() == "paused"
    saved = run("steer", run_id, "save", "--json")
    assert saved.status == 0, saved.err
    [record] = saved.records
    assert (record["type"], record["command"], record["ok"]) == ("command", "save", True)
    assert (directory.path / str(record["message"])).is_dir()
    assert run("steer", run_id, "bookmark", "good").out.startswith("bookmark: good is step ")
    scores = run("steer", run_id, "evaluate").out.splitlines()
    assert scores[0].startswith("valid at ") and scores[-1] == "evaluate: done"
    assert "5e-05 up to step" in run("steer", run_id, "learning-rate", "5e-5", "--steps", "7").out
    assert "the schedule's" in run("steer", run_id, "learning-rate", "schedule").out
    shown = run("steer", run_id, "prompts", stdin=b"a dog sees a man .\n\na cat .\n").out
    assert "a cat .  ->  " in shown and shown.endswith("prompts: 2 prompts\n")
    assert "prompts: 1 prompt\n" in run("steer", run_id, "prompts", "--reset").out
    assert "went back from step" in run("steer", run_id, "rollback", "good").out
    assert run("steer", run_id, "resume").status == 0
    assert directory.state() == "running"

    refused = run("steer", run_id, "rollback", "nowhere", "--json")
    assert refused.status == 1 and "no checkpoint nowhere; there are: " in str(refused.records[0]["message"])
    assert run("steer", run_id, "learning-rate", "7").out == (
        "learning_rate: value must be a number in [0, 1]\n"
    )
    asked = run("steer", run_id, "stop", "--wait", "0")
    assert asked.status == 0 and "was asked: stop" in asked.err
    while directory.is_locked():
        pass
    after = run("steer", run_id, "save", "--json")
    assert after.status == 1 and "is not running: it is stopped" in str(after.records[0]["message"])

    log = [events.decode(line) for line in EventReader(directory.events_path).poll()]
    assert [(done.command, done.ok) for done in log if isinstance(done, CommandDone)] == [
        ("pause", True), ("save", True), ("bookmark", True), ("evaluate", True), ("learning_rate", True),
        ("learning_rate", True), ("prompts", True), ("prompts", True), ("rollback", True), ("resume", True),
        ("rollback", False), ("learning_rate", False), ("stop", True),
    ]  # fmt: skip

    forked = run("train", "--from", f"{run_id}@good", "--set", "optim.learning_rate=1e-5", "--detach")
    assert forked.status == 0, forked.err
    fork = RunDir.open(forked.out.strip())
    assert fork.id != run_id
    translated = run("translate", "-m", f"{run_id}@good", "a dog sees a man .")
    assert translated.status == 0, translated.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x", "pauze"], "there is no action 'pauze'; did you mean 'pause'?"),
        (["x", "jump"], "there is no action 'jump'; there are pause, resume, save"),
        (["x", "learning-rate", "much"], "'much' is neither a number"),
        (["x", "learning-rate", "1e-3", "--steps", "0"], "0 is not in the range"),
        (["x", "prompts", "a", "--reset"], "either name prompts or --reset them"),
        (["x", "prompts"], "there is no prompt on stdin"),
        (["x", "save"], "no run 'x'"),
        (["x"], "name what x shall do: pause, resume, save"),
        ([], "Missing argument 'RUN'"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(run: Run, arguments: list[str], said: str) -> None:
    ran = run("steer", *arguments)
    assert (ran.status, ran.out) == (2, "")
    assert said in ran.err and ran.err.count("\n") == 1
