"""Two real processes that train one model take the steps of one: DDP and FSDP2 over gloo."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.train.corpora import make_run, of, train, translation_fields
from tests.train.together import Told, train_together
from tfm.core.checkpoint import load_checkpoint, verify_checkpoint
from tfm.train.events import AnyTrainEvent, Evaluated, Notice, RolledBack, RunEnded, RunStarted, Step
from tfm.train.loop import Trainer

# The sums of a step are added in another order, so float32 rounds them otherwise. Measured over 60 steps:
# 1e-7 of a loss, 1e-6 of a gradient norm. A lost batch, or one that is counted twice, would be 1e-2.
CURVE = {"rel": 2e-6}
WEIGHTS = {"rtol": 1e-4, "atol": 2e-6}


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes find this folder by name."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))


def fields(corpus: Path, **loop: Any) -> dict[str, Any]:
    loop = {
        "max_steps": 8, "log_every": 1, "save_every": 4, "eval_every": 4, "threads": 1, "bleu_sentences": 2,
        "sample_sentences": 1, "batch_tokens": 480, "average_last": 2, **loop,
    }  # fmt: skip
    made = translation_fields(corpus, **loop)
    made["model"] |= {
        "d_model": 32, "n_heads": 2, "d_ff": 61, "n_encoder_layers": 1, "n_decoder_layers": 1,
        "qkv_bias": False,  # a key's bias has no gradient but noise, of which Adam makes whole steps
        "activation": "gelu",  # a ReLU's gradient jumps: two that round differently part for good
    }  # fmt: skip
    return made


def curve(events: list[AnyTrainEvent]) -> list[float]:
    return [number for step in of(Step, events) for number in (step.loss, step.nll, step.grad_norm)]


def same_weights_nearly(a: Path, b: Path) -> None:
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (a, b))
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], **WEIGHTS)


def same_state(a: Path, b: Path) -> None:
    """Two checkpoints that are alike but for the order in which a step's numbers were added."""
    same_weights_nearly(a, b)
    ours, theirs = (load_file(folder / "optimizer.safetensors") for folder in (a, b))
    assert {key for key in ours if "rng" not in key} == {key for key in theirs if "rng" not in key}
    assert all(ours[key].shape == theirs[key].shape for key in theirs if "rng" not in key)


@pytest.mark.parametrize(("parallel", "ema"), [("ddp", 0.0), ("fsdp", 0.9)])
def test_two_processes_take_the_steps_of_one(tmp_path: Path, corpus: Path, parallel: str, ema: float) -> None:
    made = fields(corpus, accumulate=4)
    made["optim"]["ema"] = ema
    config, alone = make_run(tmp_path, made, "alone")
    straight = train(config, alone)
    made["loop"] |= {"accumulate": 2, "parallel": parallel, "gradient_checkpointing": parallel == "fsdp"}
    config, run = make_run(tmp_path, made, "together")
    told = train_together(config, run, 2, tmp_path / "meeting")
    first = told[0].events
    assert curve(first) == curve(told[1].events)  # to the last bit: they took the same decisions
    assert curve(first) == pytest.approx(curve(straight), **CURVE)
    assert [step.tokens for step in of(Step, first)] == [step.tokens for step in of(Step, straight)]
    scores = [[(e.step, e.loss, e.accuracy) for e in of(Evaluated, events)] for events in (first, straight)]
    assert [number for row in scores[0] for number in row] == pytest.approx(
        [number for row in scores[1] for number in row], rel=1e-3
    )
    assert of(RunStarted, first)[0].processes == 2 and first[-1] == of(RunEnded, first)[0]
    assert [folder.name for folder in run.checkpoints()] == [folder.name for folder in alone.checkpoints()]
    for folder in (*run.checkpoints(), run.path / "average"):
        verify_checkpoint(folder)
        same_weights_nearly(folder, alone.path / folder.name)
    same_state(run.checkpoints()[-1], alone.checkpoints()[-1])
    assert not list(run.path.glob(".tmp-*"))
    each_example_once_an_epoch(told, 50)


def each_example_once_an_epoch(told: list[Told], n_examples: int) -> None:
    """In turn, the processes' batches are those of whole epochs, and of a part of the last one."""
    turns = [batch for pair in zip(*(process.read for process in told), strict=True) for batch in pair]
    epoch, n_epochs = Counter[int](), 0
    for batch in turns:
        epoch.update(batch)
        assert max(epoch.values()) == 1
        if len(epoch) == n_examples:
            epoch, n_epochs = Counter(), n_epochs + 1
    assert n_epochs > 1


def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path, corpus: Path) -> None:
    made = fields(corpus, accumulate=1, max_steps=12, eval_every=100)
    config, alone = make_run(tmp_path, made, "alone")
    straight = train(config, alone)
    made["loop"]["max_steps"] = 4
    config, run = make_run(tmp_path, made, "moving")
    moved = train(config, run)
    made["loop"] |= {"max_steps": 8, "parallel": "fsdp"}
    config, _ = make_run(tmp_path, made, "config")
    told = train_together(config, run, 2, tmp_path / "two")
    halves = zip(*(process.read for process in told), strict=True)
    assert all(not set(one) & set(other) and abs(len(one) - len(other)) < 2 for one, other in halves)
    notices = [notice.message for notice in of(Notice, told[0].events)]
    assert any("written by 1 process and goes on with 2 processes" in text for text in notices)
    made["loop"] |= {"max_steps": 12, "parallel": "ddp"}
    config, _ = make_run(tmp_path, made, "config")
    back = train(config, run)
    assert of(RunStarted, back)[0].resumed_from == 8
    assert any("2 processes and goes on with 1 process" in notice.message for notice in of(Notice, back))
    steps = [step for events in (moved, told[0].events, back) for step in of(Step, events)]
    assert [step.step for step in steps] == list(range(1, 13))
    assert curve(steps) == pytest.approx(curve(straight), **CURVE)
    same_state(run.checkpoint_path(12), alone.checkpoint_path(12))


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(tmp_path: Path, corpus: Path, parallel: str) -> None:
    made = fields(corpus, parallel=parallel, accumulate=2, eval_every=100, average_last=0, max_steps=7)
    made["model"]["dropout"], made["optim"]["ema"] = 0.2, 0.9
    config, whole = make_run(tmp_path, made, "whole")
    straight = train_together(config, whole, 2, tmp_path / "one")[0].events
    _, parts = make_run(tmp_path, made, "parts")
    made["loop"]["max_steps"] = 4
    config, _ = make_run(tmp_path, made, "config")
    train_together(config, parts, 2, tmp_path / "two")
    made["loop"]["max_steps"] = 7
    config, _ = make_run(tmp_path, made, "config")
    resumed = train_together(config, parts, 2, tmp_path / "three")[0].events
    assert of(RunStarted, resumed)[0].resumed_from == 4 and not of(Notice, resumed)[1:]
    assert curve(resumed) == curve(straight)[3 * 4 :]
    for name in ("model.safetensors", "optimizer.safetensors"):
        ours, theirs = (load_file(run.checkpoint_path(7) / name) for run in (parts, whole))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert not torch.equal(theirs["rng|cpu"], theirs["rng|cpu|1"])  # they drop out different numbers


def spoil(trainer: Trainer, event: AnyTrainEvent) -> None:
    """In the second process, the loss of the third step is not a number."""
    if isinstance(event, RunStarted) and trainer.processes.rank == 1:
        plain, passes = trainer.task.loss, [0]

        def loss(*batch: Any) -> Any:
            passes[0] += 1
            found = plain(*batch)
            return replace(found, total=found.total * math.nan) if passes[0] == 3 else found

        trainer.task.loss = loss  # type: ignore[method-assign]


def test_all_go_back_when_one_loss_is_not_finite(tmp_path: Path, corpus: Path) -> None:
    config, run = make_run(tmp_path, fields(corpus, max_steps=5, save_every=2, eval_every=100))
    told = train_together(config, run, 2, tmp_path / "meeting", also=spoil)
    for process in told:
        (back,) = of(RolledBack, process.events)
        assert (back.from_step, back.step) == (2, 2) and "the loss is not finite at step 3" in back.message
    assert curve(told[0].events) == curve(told[1].events)
    assert told[0].events[-1] == RunEnded(reason="finished", step=5)
    assert load_checkpoint(run.checkpoints()[-1]).training["step"] == 5


def test_what_the_first_one_refuses_all_refuse(tmp_path: Path, corpus: Path) -> None:
    made = fields(corpus)
    made["data"]["valid_source"] = str(corpus / "train.tsv")
    (corpus / "train.tsv").write_text("one line\n")
    config, run = make_run(tmp_path, made)
    with pytest.raises(AssertionError, match=r"(?s)process 0:.*ValueError: .*process 1:.*ValueError: "):
        train_together(config, run, 2, tmp_path / "meeting")
    assert not run.checkpoints()
