"""Commands to a trainer, on real, small runs: each is carried out and answered once."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.corpora import make_run, of, same_weights, train, translation_fields
from tfm.core.checkpoint import verify_checkpoint
from tfm.train.control_inbox import ControlInbox
from tfm.train.events import CheckpointSaved, CommandDone, Evaluated, RolledBack, RunStarted, Samples, Step
from tfm.train.loop import Trainer


def quiet(corpus: Path, **loop: Any) -> dict[str, Any]:
    """Tells of every step, evaluates and saves only where the test says."""
    fields = translation_fields(corpus, **{"log_every": 1, "eval_every": 1000, "bleu_sentences": 0, **loop})
    fields["model"]["dropout"] = 0.1
    return fields


def test_save_evaluate_and_the_learning_rate(tmp_path: Path, corpus: Path) -> None:
    config, run = make_run(tmp_path, quiet(corpus, max_steps=16))

    def ask(trainer: Trainer, inbox: ControlInbox) -> None:
        inbox.send("save")
        inbox.send("learning_rate", {"value": 0.00123, "steps": 4})
        inbox.send("evaluate")

    events = train(config, run, {3: ask, 9: lambda _, inbox: inbox.send("learning_rate", {"value": 0.5}),
                                 11: lambda _, inbox: inbox.send("learning_rate", {})})  # fmt: skip
    done = of(CommandDone, events)
    assert [(answer.command, answer.ok, answer.step) for answer in done] == [
        ("save", True, 3),
        ("learning_rate", True, 3),
        ("evaluate", True, 3),
        ("learning_rate", True, 9),
        ("learning_rate", True, 11),
    ]
    rates = {step.step: step.learning_rate for step in of(Step, events)}
    assert [rates[step] == 0.00123 for step in (3, 4, 7, 8)] == [False, True, True, False]
    assert [rates[step] == 0.5 for step in (9, 10, 11, 12)] == [False, True, True, False]
    assert of(Evaluated, events)[0].step == 3
    assert "command" in [saved.reason for saved in of(CheckpointSaved, events)]


@pytest.mark.parametrize(
    ("command", "args", "message"),
    [
        ("learning_rate", {"value": "much"}, "value must be a number"),
        ("learning_rate", {"value": True}, "value must be a number"),
        ("learning_rate", {"value": 0.1, "steps": 0}, "steps must be a whole number"),
        ("bookmark", {}, "needs a name"),
        ("bookmark", {"name": "../up"}, "letters, digits"),
        ("bookmark", {"name": "12"}, "neither a number"),
        ("bookmark", {"name": "best"}, "neither a number"),
        ("rollback", {"name": "good"}, "no checkpoint good; there are: 2"),
        ("rollback", {"name": "../.."}, "no checkpoint"),
        ("rollback", {"step": 7}, "no checkpoint 7; there are: 2"),
        ("rollback", {"step": None}, "step a whole number"),
        ("prompts", {"texts": "A dog."}, "list of prompts"),
        ("prompts", {"texts": ["A dog.", " "]}, "list of prompts"),
        ("prompts", {"texts": ["A dog."] * 33}, "at most 32 prompts"),
        ("prompts", {"texts": ["dog " * 400]}, "this model takes at most 64"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(
    tmp_path: Path, corpus: Path, command: str, args: dict[str, Any], message: str
) -> None:
    config, run = make_run(tmp_path, quiet(corpus, max_steps=4, save_every=2))
    events = train(config, run, {3: lambda _, inbox: inbox.send(command, args)})
    (done,) = of(CommandDone, events)
    assert not done.ok and message in done.message and "\n" not in done.message
    assert [step.step for step in of(Step, events)] == [1, 2, 3, 4]  # and the run is what it was
    assert not of(RolledBack, events)


def test_a_bookmark_outlives_retention_and_going_back_is_exact(tmp_path: Path, corpus: Path) -> None:
    config, straight = make_run(tmp_path, quiet(corpus, max_steps=16, save_every=4, keep_last=2), "straight")
    losses = {step.step: step.loss for step in of(Step, train(config, straight))}
    config, run = make_run(tmp_path, quiet(corpus, max_steps=16, save_every=4, keep_last=2), "steered")

    def back(trainer: Trainer, inbox: ControlInbox) -> None:
        assert not run.checkpoint_path(3).exists()  # let go of, but for the bookmark
        torch.manual_seed(999)
        inbox.send("rollback", {"name": "early"})

    events = train(config, run, {3: lambda _, inbox: inbox.send("bookmark", {"name": "early"}), 13: back})
    assert [(done.command, done.ok, done.step) for done in of(CommandDone, events)] == [
        ("bookmark", True, 3),
        ("rollback", True, 3),
    ]
    (rolled,) = of(RolledBack, events)
    assert (rolled.step, rolled.from_step, rolled.path) == (3, 13, "bookmark-early")
    steps = of(Step, events)
    assert [step.step for step in steps] == [*range(1, 14), *range(4, 17)]
    assert all(step.loss == losses[step.step] for step in steps)
    assert all(later.seconds > step.seconds for step, later in pairwise(steps))
    assert same_weights(run.checkpoint_path(16), straight.checkpoint_path(16))
    verify_checkpoint(run.path / "bookmark-early")
    undone = [folder.name[:18] for folder in sorted(run.path.glob("undone-*"))]
    assert undone == ["undone-step-000008", "undone-step-000012"]


def test_a_run_that_went_back_is_resumed_from_there(tmp_path: Path, corpus: Path) -> None:
    config, run = make_run(tmp_path, quiet(corpus, max_steps=10, save_every=3))
    trainer, inbox = Trainer(config, run), ControlInbox(run)
    for event in trainer.run():
        if isinstance(event, Step) and event.step == 2:
            inbox.send("bookmark", {"name": "two"})
        if isinstance(event, Step) and event.step == 7:
            inbox.send("rollback", {"name": "two"})
        if isinstance(event, RolledBack):
            break  # as good as a kill
    events = train(config, run, {7: lambda _, inbox: inbox.send("rollback")})
    assert of(RunStarted, events)[0].resumed_from == 2
    assert [step.step for step in of(Step, events)] == [*range(3, 8), *range(7, 11)]
    assert of(RolledBack, events)[0].path == "step-000006"  # without a name: the newest
    assert len(list(run.path.glob("undone-*"))) == 2  # nothing was undone, so what was before stays


def test_going_back_to_the_best(tmp_path: Path, corpus: Path) -> None:
    config, run = make_run(tmp_path, quiet(corpus, max_steps=9, save_every=2))

    def spoil(trainer: Trainer, inbox: ControlInbox) -> None:
        with torch.no_grad():
            trainer.model.decoder_norm.weight.mul_(30.0)
        inbox.send("evaluate")
        inbox.send("rollback", {"name": "best"})

    events = train(config, run, {4: lambda _, inbox: inbox.send("evaluate"), 7: spoil})
    assert [done.ok for done in of(CommandDone, events)] == [True, True, True]
    assert [evaluated.best for evaluated in of(Evaluated, events)][:2] == [True, False]
    assert of(RolledBack, events)[0].path == "step-000004"


def test_prompts_can_be_changed_and_stay_changed(tmp_path: Path, corpus: Path) -> None:
    config, run = make_run(tmp_path, quiet(corpus, max_steps=6, save_every=3))
    texts = ["The dog sees a red tree.", "[/b] The man has a car."]
    changed = {2: lambda _, inbox: inbox.send("prompts", {"texts": texts})}
    trainer, inbox = Trainer(config, run), ControlInbox(run)
    events = []
    for event in trainer.run():
        events.append(event)
        if isinstance(event, Step) and event.step in changed:
            changed.pop(event.step)(trainer, inbox)
        if isinstance(event, CheckpointSaved):
            break
    (shown,) = of(Samples, events)
    assert (shown.step, [sample.source for sample in shown.samples]) == (2, texts)
    events = train(config, run, {4: lambda _, inbox: inbox.send("prompts", {"texts": []})})
    assert [len(shown.samples) for shown in of(Samples, events)] == [4, 4]
    config, run = make_run(tmp_path, quiet(corpus, max_steps=6, save_every=3), "again")
    events = train(config, run, {2: lambda _, inbox: inbox.send("prompts", {"texts": texts})})
    assert [sample.source for sample in of(Samples, events)[-1].samples] == texts


def test_a_paused_run_obeys(tmp_path: Path, corpus: Path) -> None:
    config, run = make_run(tmp_path, quiet(corpus, max_steps=5, save_every=2))
    inbox, events = ControlInbox(run), []
    for event in Trainer(config, run).run():
        events.append(event)
        if isinstance(event, Step) and event.step == 3 and len(events) < 6:
            inbox.send("pause")
        if isinstance(event, CommandDone) and event.command == "pause":
            inbox.send("evaluate")
            inbox.send("rollback", {"step": 2})
            inbox.send("resume")
    assert [(done.command, done.step) for done in of(CommandDone, events)] == [
        ("pause", 3),
        ("evaluate", 3),
        ("rollback", 2),
        ("resume", 2),
    ]
    config, run = make_run(tmp_path, quiet(corpus, max_steps=1000), "stopped")
    inbox, events = ControlInbox(run), []
    for event in Trainer(config, run).run():
        events.append(event)
        if isinstance(event, Step) and event.step == 2:
            inbox.send("pause")
            inbox.send("stop")
    assert events[-1].reason == "stopped"
