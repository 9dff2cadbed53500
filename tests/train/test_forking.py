"""A fork is a run of its own that goes on exactly where the other one stood."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.train.corpora import make_run, of, same_weights, train, translation_fields, write_pairs
from tfm.core.engine import protocol
from tfm.train import events
from tfm.train.config import load_config
from tfm.train.event_log import EventLog, EventReader
from tfm.train.forking import checkpoints_of, fork
from tfm.train.run_dir import RunDir
from tfm.train.services import run_services


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """20 steps, checkpoints at 10, 15 and 20, step 10 bookmarked; its log written as a trainer writes it."""
    tmp_path = tmp_path_factory.mktemp("parent")
    write_pairs(tmp_path)
    config, run = make_run(tmp_path, translation_fields(tmp_path, keep_last=3))
    told = train(config, run, {10: lambda t, inbox: inbox.send("bookmark", {"name": "good"})})
    log = EventLog(run)
    for event in told:
        log.append(event)
    log.close()
    return run


def story(run: RunDir) -> list[events.AnyTrainEvent]:
    return [events.decode(line) for line in EventReader(run.events_path).poll()]


def test_every_checkpoint_that_can_be_gone_back_to_is_listed(parent: RunDir) -> None:
    found = checkpoints_of(parent)
    assert {(c.name, c.step) for c in found} >= {("good", 10), ("15", 15), ("20", 20)}
    assert [c.step for c in found] == sorted(c.step for c in found)
    assert sum(c.best for c in found) == 1
    [listed] = ask(parent, protocol.RunCheckpoints(id=3, run=str(parent.path)))
    assert isinstance(listed, protocol.RunCheckpointsListed) and list(listed.checkpoints) == found


def ask(run: RunDir, request: protocol.Request) -> list[protocol.Event]:
    answers: list[protocol.Event] = []
    run_services()[type(request)](request, answers.append, lambda: False)
    return answers


def test_a_fork_does_what_its_parent_did(parent: RunDir, tmp_path: Path) -> None:
    new = fork(parent, "good", {}, tmp_path)
    assert [folder.name for folder in new.checkpoints()] == ["step-000010"]
    before = story(new)
    assert [e.step for e in of(events.Step, before)] == [
        e.step for e in of(events.Step, story(parent)) if e.step <= 10
    ]
    assert [e.seq for e in before] == list(range(len(before)))
    assert isinstance(before[-1], events.Notice) and parent.id in before[-1].message
    told = train(load_config(new.config_path), new)
    assert of(events.RunStarted, told)[0].resumed_from == 10
    losses = {e.step: e.loss for e in of(events.Step, story(parent))}
    assert {e.step: e.loss for e in of(events.Step, told)} == {s: x for s, x in losses.items() if s > 10}
    assert same_weights(new.checkpoint_path(20), parent.checkpoint_path(20))


def test_a_fork_may_differ_and_says_how(parent: RunDir, tmp_path: Path) -> None:
    new = fork(parent, "15", {"optim.learning_rate": "1e-4", "loop.max_steps": "40"}, tmp_path)
    config = load_config(new.config_path)
    assert config.optim.learning_rate == 1e-4 and config.loop.max_steps == 40
    assert "optim.learning_rate = 1e-4" in of(events.Notice, story(new))[-1].message
    newest = fork(parent, "", {"loop.max_steps": "40"}, tmp_path)
    assert [folder.name for folder in newest.checkpoints()] == ["step-000020"]


@pytest.mark.parametrize(
    ("which", "overrides", "why"),
    [
        ("99", {}, r"no checkpoint 99; there are: .*good"),
        ("../15", {}, "no checkpoint"),
        ("15", {"model.d_model": "32"}, "model.d_model cannot change"),
        ("15", {"optim.nonsense": "1"}, "nonsense"),
        ("20", {}, "loop.max_steps"),
        ("average", {}, "no checkpoint average"),
    ],
)
def test_a_fork_that_cannot_be_is_one_sentence(
    parent: RunDir, tmp_path: Path, which: str, overrides: dict[str, str], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        fork(parent, which, overrides, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_best_of_the_parents_is_none_of_the_forks(parent: RunDir, tmp_path: Path) -> None:
    new = fork(parent, "best", {"loop.max_steps": "40"}, tmp_path)  # step 20
    assert [folder.name for folder in new.checkpoints()] == ["step-000020"]
    new = fork(parent, "15", {"optim.learning_rate": "1e-9"}, tmp_path)  # its best was step 10
    told = train(load_config(new.config_path), new)
    assert of(events.Evaluated, told)[0].best


def test_a_damaged_checkpoint_is_not_forked(parent: RunDir, tmp_path: Path) -> None:
    spoilt = RunDir(shutil.copytree(parent.path, tmp_path / "spoilt"))
    weights = spoilt.path / "step-000015" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(ValueError, match=r"step-000015.*model\.safetensors"):
        fork(spoilt, "15", {}, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_run_without_a_trainer_has_no_figures(parent: RunDir) -> None:
    assert ask(parent, protocol.RunStats(id=1, run=str(parent.path))) == []
    with parent.lock():  # this process is the trainer now
        box, trainer = ask(parent, protocol.RunStats(id=1, run=str(parent.path)))
    assert isinstance(box, protocol.Box) and box.memory_total > box.memory_used > 0
    assert isinstance(trainer, protocol.TrainerStats)
    assert trainer.memory > 50_000_000 and trainer.cpu_seconds > 0
