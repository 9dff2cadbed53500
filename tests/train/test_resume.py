"""A run that dies and is resumed goes on as if nothing had happened: bit for bit, whatever it trains."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import SENTENCES
from tests.train.corpora import language_fields, make_run, of, train, translation_fields, write_dialogues
from tfm.train import events
from tfm.train.event_log import EventReader
from tfm.train.events import AnyTrainEvent, Evaluated, RunStarted, Samples, Step
from tfm.train.launch import start_detached
from tfm.train.loop import Trainer
from tfm.train.run_dir import RunDir

OBJECTIVES = ("translation", "dialogue", "text", "masked-lm")
KINDS = (*OBJECTIVES, "r-drop", "bpe-dropout")


class Killed(BaseException):
    """Not an Exception: nothing handles it."""


def fields(kind: str, tmp_path: Path, corpus: Path, **loop: Any) -> dict[str, Any]:
    """Dropout, a moving average and three batches a step: all that has a state."""
    loop = {
        "log_every": 1, "accumulate": 3, "bleu_sentences": 2, "sample_sentences": 1, "threads": 1,
        "save_every": 4, "eval_every": 5, **loop,
    }  # fmt: skip
    if kind in ("translation", "r-drop", "bpe-dropout"):
        made = translation_fields(corpus, **loop)
    elif kind == "dialogue":
        path = write_dialogues(tmp_path / "talk.jsonl")
        made = language_fields("causal-lm", {"train": str(path), "format": "dialogue"}, **loop)
    else:
        (tmp_path / "text").write_text("\n".join(SENTENCES * 4))
        objective = "masked-lm" if kind == "masked-lm" else "causal-lm"
        format_ = {"text": "text"}.get(kind, "lines")
        made = language_fields(objective, {"train": str(tmp_path / "text"), "format": format_}, **loop)
    made["model"]["dropout"] = 0.1
    made["optim"] |= {"ema": 0.9, "weight_decay": 0.01}
    if kind == "bpe-dropout":
        made["data"]["bpe_dropout"] = 0.2
    if kind == "r-drop":  # from the third step on every batch is read twice
        made["optim"] |= {"r_drop": 5.0, "r_drop_after": 2}
    return made


def same_state(a: Path, b: Path) -> bool:
    """Whether two checkpoints hold the same weights, moments, random states and progress."""
    for name in ("model.safetensors", "optimizer.safetensors"):
        ours, theirs = load_file(a / name), load_file(b / name)
        if ours.keys() != theirs.keys() or not all(torch.equal(ours[key], theirs[key]) for key in ours):
            return False
    ours, theirs = (msgspec.json.decode((folder / "trainer.json").read_bytes()) for folder in (a, b))
    for progress in (ours, theirs):
        progress["seconds"] = progress["window"]["seconds"] = 0.0
    return bool(ours == theirs)


def told(run_events: list[AnyTrainEvent], after: int) -> list[object]:
    """What was said of the training after a step, times apart."""
    said: list[object] = []
    for event in run_events:
        if isinstance(event, Step) and event.step > after:
            said.append(msgspec.structs.replace(event, seq=0, time=0, seconds=0, tokens_per_second=0))
        if isinstance(event, Evaluated | Samples) and event.step > after:
            said.append(msgspec.structs.replace(event, seq=0, time=0))
        if isinstance(event, Evaluated) and event.step > after:
            said[-1] = msgspec.structs.replace(event, seq=0, time=0, seconds=0)
    return said


@pytest.mark.parametrize(("kind", "log_every"), [*((kind, 1) for kind in KINDS), ("text", 7)])
def test_death_in_the_middle_of_a_step(tmp_path: Path, corpus: Path, kind: str, log_every: int) -> None:
    made = fields(kind, tmp_path, corpus, max_steps=17, log_every=log_every)
    config, whole = make_run(tmp_path, made, "whole")
    straight = train(config, whole)
    config, parts = make_run(tmp_path, made, "parts")
    trainer, n_calls = Trainer(config, parts), 0
    with pytest.raises(Killed):
        for event in trainer.run():
            if isinstance(event, RunStarted):

                def dying(*args: Any, loss: Any = trainer.task.loss) -> Any:
                    nonlocal n_calls
                    n_calls += 1
                    if n_calls == 3 * 13 + 2:  # the second of the three batches of step 14
                        raise Killed
                    return loss(*args)

                trainer.task.loss = dying  # type: ignore[method-assign]
    torch.manual_seed(1234)
    resumed = train(config, parts)
    assert of(RunStarted, resumed)[0].resumed_from == 12
    n_batches = len(trainer.order.epoch(0))
    assert n_batches < 3 * 12  # there were epoch edges before, and after
    assert told(resumed, 12) == told(straight, 12)
    assert same_state(parts.checkpoint_path(17), whole.checkpoint_path(17))


@pytest.mark.parametrize("kind", KINDS)
def test_resuming_at_the_edge_of_an_epoch(tmp_path: Path, corpus: Path, kind: str) -> None:
    made = fields(kind, tmp_path, corpus, max_steps=1, accumulate=1, batch_tokens=250)
    config, probe = make_run(tmp_path, made, "probe")
    trainer = Trainer(config, probe)
    list(trainer.run())
    n_batches = len(trainer.order.epoch(0))
    assert n_batches > 1
    made["loop"] |= {"max_steps": n_batches + 3, "save_every": n_batches}
    config, whole = make_run(tmp_path, made, "whole")
    straight = train(config, whole)
    config, parts = make_run(tmp_path, made, "parts")
    for event in Trainer(config, parts).run():
        if isinstance(event, Step) and event.step == n_batches + 1:
            break
    torch.manual_seed(1234)
    trainer = Trainer(config, parts, resume=True)
    resumed = []
    for event in trainer.run():
        if isinstance(event, RunStarted):
            assert (trainer.progress.epoch, trainer.progress.batch) == (0, n_batches)
        resumed.append(event)
    assert told(resumed, n_batches) == told(straight, n_batches)
    assert same_state(parts.checkpoint_path(n_batches + 3), whole.checkpoint_path(n_batches + 3))


# --------------------------------------------------------------------------- processes
def all_events(run: RunDir) -> list[AnyTrainEvent]:
    reader, found = EventReader(run.events_path), list[AnyTrainEvent]()
    while lines := reader.poll():
        found += map(events.decode, lines)
    return found


def last_step(run: RunDir) -> int:
    return max((event.step for event in of(Step, all_events(run))), default=0)


def await_end(run: RunDir, step: int | None = None) -> None:
    """Until the run has ended, or has told of a step."""
    deadline = time.monotonic() + 600
    while run.state() == "running" if step is None else last_step(run) < step:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("kind", "kill_at", "steps"),
    [("translation", 13, 24), *(pytest.param(kind, 130, 300, marks=pytest.mark.slow) for kind in KINDS)],
)
def test_kill_minus_nine(tmp_path: Path, corpus: Path, kind: str, kill_at: int, steps: int) -> None:
    loop = {"max_steps": steps, "save_every": 8, "eval_every": 25}
    made = fields(kind, tmp_path, corpus, **loop)
    config, whole = make_run(tmp_path, made, "whole")
    straight = train(config, whole)
    _, parts = make_run(tmp_path, made, "parts")
    start_detached(None, resume=parts.path)
    await_end(parts, kill_at)
    owner = parts.owner()
    assert owner is not None
    os.kill(owner.pid, signal.SIGKILL)
    while parts.is_locked():
        time.sleep(0.01)
    assert parts.state() == "lost"
    start_detached(None, resume=parts.path)
    await_end(parts)
    first, second = of(RunStarted, all_events(parts))
    at = second.resumed_from
    assert first.resumed_from is None and at is not None and kill_at - 8 < at < steps
    resumed = all_events(parts)
    assert told(resumed[resumed.index(second) :], at) == told(straight, at)
    assert same_state(parts.checkpoint_path(steps), whole.checkpoint_path(steps))
