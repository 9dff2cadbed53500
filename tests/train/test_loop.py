"""The training loop on real, small runs."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.train.corpora import make_run, of, sentence_pairs, train, translation_fields, write_pairs
from tfm.core import run_checkpoints
from tfm.core.checkpoint import load_checkpoint, verify_checkpoint
from tfm.core.search import translate_batch
from tfm.train.control_inbox import ControlInbox
from tfm.train.events import (
    CheckpointSaved,
    CommandDone,
    Evaluated,
    Notice,
    RunEnded,
    RunStarted,
    Samples,
    Step,
)
from tfm.train.loop import Trainer


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    write_pairs(tmp_path / "data")
    return tmp_path / "data"


def test_overfits_fifty_pairs(tmp_path: Path, corpus: Path) -> None:
    fields = translation_fields(corpus, max_steps=240, eval_every=120, save_every=120)
    config, run = make_run(tmp_path, fields)
    events = list(Trainer(config, run).run())
    assert isinstance(events[0], RunStarted) and isinstance(events[-1], RunEnded)
    assert events[-1].reason == "finished"
    evaluations = of(Evaluated, events)
    assert evaluations[-1].accuracy == 1.0
    assert evaluations[-1].bleu == pytest.approx(100.0)
    assert (evaluations[-1].cer, evaluations[-1].wer) == (0.0, 0.0)
    assert evaluations[0].loss > evaluations[-1].loss
    assert of(Step, events)[0].accuracy < 0.1
    samples = of(Samples, events)[-1].samples
    assert all(sample.output == sample.reference for sample in samples)
    checkpoint = load_checkpoint(run.checkpoints()[-1])
    source, target = sentence_pairs(50)[17]
    assert translate_batch(checkpoint, [source], beam=4) == [target]


def test_events_tell_the_run(tmp_path: Path, corpus: Path) -> None:
    config, run = make_run(tmp_path, translation_fields(corpus, max_steps=12, keep_last=2, average_last=2))
    events = list(Trainer(config, run).run())
    record = load_checkpoint(run.checkpoints()[-1]).training
    assert record["config"]["data"]["train_source"] == "train.en"  # a checkpoint names no place
    assert [step.step for step in of(Step, events)] == [1, 5, 10, 12]
    assert [(saved.step, saved.reason) for saved in of(CheckpointSaved, events)] == [
        (5, "interval"),
        (10, "best"),
        (10, "interval"),
        (12, "best"),
        (12, "final"),
        (12, "average"),
    ]
    assert [folder.name for folder in run.checkpoints()] == ["step-000010", "step-000012"]
    for folder in (*run.checkpoints(), run.path / "average"):
        verify_checkpoint(folder)
    last, mean = (
        load_file(run.checkpoints()[-1] / "model.safetensors"),
        load_file(run.path / "average" / "model.safetensors"),
    )
    first = load_file(run.checkpoints()[0] / "model.safetensors")
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, (first[name] + last[name]) / 2)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_resumed_run_is_bitwise_the_uninterrupted_one(tmp_path: Path, corpus: Path, accumulate: int) -> None:
    def fields(steps: int) -> dict[str, Any]:
        made = translation_fields(
            corpus, max_steps=20, accumulate=accumulate, save_every=steps, eval_every=100
        )
        made["model"]["dropout"] = 0.2
        return made

    config, whole = make_run(tmp_path, fields(20), "whole")
    straight = of(Step, list(Trainer(config, whole).run()))
    config, parts = make_run(tmp_path, fields(7), "parts")
    trainer = Trainer(config, parts)
    for event in trainer.run():
        if isinstance(event, CheckpointSaved) and event.step == 7:
            break  # as good as a kill: nothing after this line of the loop runs
    torch.manual_seed(12345)
    resumed = list(Trainer(config, parts, resume=True).run())
    assert of(RunStarted, resumed)[0].resumed_from == 7
    losses = {step.step: step.loss for step in of(Step, resumed)}
    assert losses[20] == {step.step: step.loss for step in straight}[20]
    ours = load_file(parts.checkpoint_path(20) / "model.safetensors")
    theirs = load_file(whole.checkpoint_path(20) / "model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_resume_passes_over_a_damaged_checkpoint(tmp_path: Path, corpus: Path) -> None:
    config, run = make_run(tmp_path, translation_fields(corpus, max_steps=12, save_every=4))
    for event in Trainer(config, run).run():
        if isinstance(event, CheckpointSaved) and event.step == 8:
            break
    weights = run.checkpoint_path(8) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    events = list(Trainer(config, run, resume=True).run())
    assert of(RunStarted, events)[0].resumed_from == 4
    assert any("step-000008 is damaged" in notice.message for notice in of(Notice, events))
    assert events[-1].reason == "finished"
    for folder in run.checkpoints():
        verify_checkpoint(folder)
    assert [folder.name[:19] for folder in run.path.glob("damaged-*")] == ["damaged-step-000008"]


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(tmp_path: Path, corpus: Path) -> None:
    config, run = make_run(tmp_path, translation_fields(corpus, max_steps=8, save_every=2))
    limits, events = resource.getrlimit(resource.RLIMIT_FSIZE), []
    try:
        for event in Trainer(config, run).run():
            events.append(event)
            if isinstance(event, CheckpointSaved) and event.step == 2:
                resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
            if isinstance(event, Notice):
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (notice,) = of(Notice, events)
    assert notice.level == "error" and "no checkpoint at step 4: cannot write" in notice.message
    assert [folder.name for folder in run.checkpoints()] == ["step-000002", "step-000006", "step-000008"]
    assert events[-1].reason == "finished"
    assert not list(run.path.glob(".tmp-*"))


def test_stop_saves_first(tmp_path: Path, corpus: Path) -> None:
    config, run = make_run(
        tmp_path, translation_fields(corpus, max_steps=1000, save_every=1000, eval_every=1000)
    )
    inbox, events = ControlInbox(run), []
    for event in Trainer(config, run).run():
        events.append(event)
        if isinstance(event, Step) and event.step == 5:
            inbox.send("stop")
    assert events[-1].reason == "stopped"
    assert of(CheckpointSaved, events)[-1].reason == "stop"
    assert of(CommandDone, events)[-1].ok
    assert [folder.name for folder in run.checkpoints()] == [f"step-{events[-1].step:06d}"]


def test_time_budget_and_patience(tmp_path: Path, corpus: Path) -> None:
    config, run = make_run(tmp_path, translation_fields(corpus, max_steps=10_000, max_minutes=0.01))
    assert list(Trainer(config, run).run())[-1].reason == "time"
    fields = translation_fields(corpus, max_steps=400, eval_every=2, patience=3, best_by="loss")
    fields["optim"]["learning_rate"] = 1e-9
    config, run = make_run(tmp_path, fields, "patient")
    fields["optim"]["learning_rate"] = 1.0  # diverges: the loss gets no better
    config, run = make_run(tmp_path, fields, "impatient")
    ended = list(Trainer(config, run).run())[-1]
    assert ended.reason == "early" and ended.step < 400


def test_tsv_and_left_out_pairs(tmp_path: Path, corpus: Path) -> None:
    fields = translation_fields(corpus, max_steps=2)
    fields["data"] = {
        "train": str(corpus / "train.tsv"),
        "format": "tsv",
        "vocab_size": 400,
        "max_tokens": 256,
    }
    config, run = make_run(tmp_path, fields)
    events = list(Trainer(config, run).run())
    assert events[-1].reason == "finished"
    assert any("no validation set" in notice.message for notice in of(Notice, events))


def test_a_run_whose_best_is_better_than_its_average_says_so(tmp_path: Path, corpus: Path) -> None:
    fields = translation_fields(
        corpus, max_steps=4, save_every=1, eval_every=2, average_last=3, bleu_sentences=0
    )
    fields["optim"] |= {
        "warmup_steps": 1,
        "learning_rate": 0.01,
    }  # each step is far better than the one before
    config, run = make_run(tmp_path, fields)
    said = [notice.message for notice in of(Notice, train(config, run))]
    assert any("step 4 has a better loss than the average" in message for message in said)
    assert run_checkpoints.find(run.path) == run.checkpoint_path(4)
    assert run_checkpoints.find(run.path, "average") == run.path / "average"


def test_a_small_corpus_read_too_often_is_told_of(tmp_path: Path, corpus: Path) -> None:
    loop = {"bleu_sentences": 0, "sample_sentences": 0, "batch_tokens": 4000}
    for patience, told in ((0, True), (3, False)):
        fields = translation_fields(corpus, max_steps=1000, patience=patience, **loop)
        config, run = make_run(tmp_path, fields, f"patience-{patience}")
        trainer = Trainer(config, run)
        said = []
        for event in trainer.run():
            said.append(event)
            if isinstance(event, Step):
                break
        assert any("steps read this corpus 1,000 times" in n.message for n in of(Notice, said)) is told
