"""Losses that are not finite, and spikes: never applied, the run goes back and gets over them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.train.corpora import make_run, of, same_weights, train, translation_fields
from tfm.core.checkpoint import verify_checkpoint
from tfm.train.config import GuardConfig
from tfm.train.control_inbox import ControlInbox
from tfm.train.events import AnyTrainEvent, Notice, RolledBack, RunEnded, RunStarted, Step
from tfm.train.guard import LEAST_DEVIATION, GuardState, applied, refusal, refused, retry
from tfm.train.loop import Trainer

UNCHANGED = {"skip": False, "lower_by": 1.0}


def guarded(corpus: Path, guard: dict[str, Any], **loop: Any) -> dict[str, Any]:
    fields = translation_fields(
        corpus, **{"log_every": 1, "eval_every": 1000, "bleu_sentences": 0, "max_steps": 12, **loop}
    )
    fields["model"]["dropout"] = 0.1
    fields["guard"] = guard
    return fields


def poison(value: float) -> Callable[[Trainer, ControlInbox], None]:
    """The next step's loss is what such a weight makes of it."""

    def change(trainer: Trainer, inbox: ControlInbox) -> None:
        with torch.no_grad():
            trainer.model.decoder_norm.weight.mul_(value)

    return change


# --------------------------------------------------------------------------- the rule
def test_what_is_not_finite_is_refused_from_the_first_step_on() -> None:
    for loss, norm in ((float("nan"), 1.0), (float("inf"), 1.0), (1.0, float("nan"))):
        assert "not finite" in refusal(GuardConfig(), GuardState(), loss, norm)
    assert refusal(GuardConfig(), GuardState(), 1e9, 1.0) == ""


@given(losses=st.lists(st.floats(0, 10), min_size=10, max_size=20), loss=st.floats(0, 50))
def test_a_spike_is_what_the_rule_says(losses: list[float], loss: float) -> None:
    config = GuardConfig(window=20, spike_deviations=3.0)
    mean = sum(losses) / len(losses)
    deviation = (sum((x - mean) ** 2 for x in losses) / len(losses)) ** 0.5
    border = mean + 3.0 * max(deviation, LEAST_DEVIATION)
    if abs(loss - border) > 1e-6:
        assert bool(refusal(config, GuardState(losses=losses), loss, 1.0)) == (loss > border)
    assert refusal(config, GuardState(losses=losses[:9]), 50.0, 1.0) == ""  # too few to know
    assert refusal(GuardConfig(window=20, spike_deviations=0), GuardState(losses=losses), 50.0, 1.0) == ""


def test_a_window_beyond_the_trouble_it_is_forgotten() -> None:
    config, state = GuardConfig(window=4), GuardState()
    for step in range(1, 10):
        applied(config, state, float(step), step)
    assert state.losses == [6.0, 7.0, 8.0, 9.0]
    refused(state, 10)
    refused(state, 9)  # another, before the first was passed
    assert (state.in_a_row, state.trouble_step) == (2, 10)
    for step in range(7, 14):
        applied(config, state, 1.0, step)
    assert state.in_a_row == 2
    applied(config, state, 1.0, 14)
    assert state.in_a_row == 0


def test_what_is_changed_before_another_try() -> None:
    config = GuardConfig(lower_by=0.5, lower_steps=100)
    state, then = GuardState(in_a_row=1, trouble_step=50, losses=[9.0]), GuardState(losses=[2.0])
    first = retry(config, state, then, 40, [(0, 49)])
    assert (first.losses, first.left_out, first.in_a_row) == ([2.0], [(0, 49)], 1)
    assert (first.rate_factor, first.lowered_until) == (0.5, 140)
    first.trouble_step = 60
    second = retry(config, first, then, 40, [(0, 59)])
    assert (second.rate_factor, second.left_out) == (0.25, [(0, 49), (0, 59)])
    second.trouble_step = 500  # long after the rate was what it should be again
    assert retry(config, second, then, 450, []).rate_factor == 0.5
    unchanged = retry(GuardConfig(skip=False, lower_by=1.0), state, then, 40, [(0, 49)])
    assert (unchanged.left_out, unchanged.rate_factor, unchanged.lowered_until) == ([], 1.0, 0)


# --------------------------------------------------------------------------- runs
@pytest.mark.parametrize(("save_every", "back_to"), [(3, 6), (100, 0)])
def test_a_run_that_went_back_is_bitwise_one_that_had_no_trouble(
    tmp_path: Path, corpus: Path, save_every: int, back_to: int
) -> None:
    config, clean = make_run(tmp_path, guarded(corpus, UNCHANGED), "clean")
    losses = {step.step: step.loss for step in of(Step, train(config, clean))}
    config, run = make_run(tmp_path, guarded(corpus, UNCHANGED, save_every=save_every), "troubled")
    events = train(config, run, {7: poison(float("inf"))})
    (rolled,) = of(RolledBack, events)
    assert (rolled.step, rolled.from_step) == (back_to, 7)
    assert rolled.path == (f"step-{back_to:06d}" if back_to else "")
    assert rolled.message == "the loss is not finite at step 8; no update was applied"
    notices = [notice.message for notice in of(Notice, events)]
    assert f"back at step {back_to}, attempt 1 of 3: nothing is changed, as the config asks" in notices
    assert all(step.loss == losses[step.step] for step in of(Step, events))
    assert of(RunEnded, events)[0].reason == "finished"
    assert same_weights(run.checkpoint_path(12), clean.checkpoint_path(12))


def test_a_spike_is_left_out_and_the_rate_lowered_for_a_while(tmp_path: Path, corpus: Path) -> None:
    guard = {"window": 8, "lower_by": 0.5, "lower_steps": 6}
    fields = guarded(corpus, guard, max_steps=20, save_every=5)
    config, run = make_run(tmp_path, fields)
    trainers: list[Trainer] = []

    def spoil(trainer: Trainer, inbox: ControlInbox) -> None:
        trainers.append(trainer)
        poison(40.0)(trainer, inbox)

    events = train(config, run, {12: spoil})
    (rolled,) = of(RolledBack, events)
    assert "the loss is a spike:" in rolled.message and (rolled.step, rolled.from_step) == (10, 12)
    rates = [(step.step, step.learning_rate) for step in of(Step, events)]
    schedule = {step: 3e-3 * min(step / 20, 1.0) for step in range(1, 21)}
    factors = [round(rate / schedule[step], 6) for step, rate in rates[12:]]
    assert factors == [0.5] * 6 + [1.0] * 4
    (trainer,) = trainers
    (left_out,) = trainer.progress.guard.left_out
    n_batches = len(trainer.order.epoch(0))
    assert left_out == divmod(12, n_batches)  # one batch a step: the 13th of all
    assert trainer.progress.step == 20
    assert (trainer.progress.epoch * n_batches + trainer.progress.batch) == 21


def test_each_further_time_it_goes_back_further_and_at_last_it_ends(tmp_path: Path, corpus: Path) -> None:
    config, run = make_run(tmp_path, guarded(corpus, {"attempts": 3}, save_every=3, keep_last=2))
    trainer, events = Trainer(config, run), list[AnyTrainEvent]()
    for event in trainer.run():
        events.append(event)
        if isinstance(event, Step) and event.step >= 7:
            poison(float("nan"))(trainer, ControlInbox(run))
    assert [rolled.step for rolled in of(RolledBack, events)] == [6, 3, 3]
    ended = events[-1]
    assert isinstance(ended, RunEnded) and ended.reason == "failed"
    assert "after 3 attempts; the checkpoints are as they were" in ended.message
    assert [notice.level for notice in of(Notice, events)][-1] == "error"
    whole = run.checkpoints()
    assert [folder.name for folder in whole] == ["step-000003", "step-000006"]
    for folder in whole:
        verify_checkpoint(folder)


def test_without_attempts_the_first_trouble_is_the_end(tmp_path: Path, corpus: Path) -> None:
    config, run = make_run(tmp_path, guarded(corpus, {"attempts": 0}, save_every=2))
    events = train(config, run, {5: poison(float("nan"))})
    assert not of(RolledBack, events)
    (ended,) = of(RunEnded, events)
    assert (ended.reason, ended.step) == ("failed", 5)
    verify_checkpoint(run.checkpoints()[-1])


def test_what_the_guard_knows_is_resumed(tmp_path: Path, corpus: Path) -> None:
    config, run = make_run(tmp_path, guarded(corpus, {"window": 6}, save_every=8))
    events = list[AnyTrainEvent]()
    for event in Trainer(config, run).run():
        events.append(event)
        if isinstance(event, Step) and event.step == 9:
            break
    trainer = Trainer(config, run, resume=True)
    assert next(event.resumed_from for event in trainer.run() if isinstance(event, RunStarted)) == 8
    assert trainer.progress.guard.losses == [step.loss for step in of(Step, events)][2:8]
