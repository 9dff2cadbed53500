"""Corpora are prepared once, in the cache, and what a run begins with."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.conftest import SENTENCES, make_checkpoint
from tests.train.corpora import (
    language_fields,
    make_run,
    of,
    same_weights,
    sentence_pairs,
    train,
    translation_fields,
)
from tfm.core.checkpoint import load_checkpoint
from tfm.train import preparation
from tfm.train.beginning import find_initial
from tfm.train.config import parse_config
from tfm.train.control_inbox import ControlInbox
from tfm.train.events import CommandDone, Evaluated, Notice, Preparing, RunEnded, RunStarted, Step
from tfm.train.loop import Trainer
from tfm.train.state import Progress


def fields(corpus: Path, **loop: Any) -> dict[str, Any]:
    return translation_fields(
        corpus, **{"log_every": 1, "eval_every": 1000, "bleu_sentences": 0, "max_steps": 3, **loop}
    )


def cache(tmp_path: Path) -> dict[str, int]:
    """What lies in the cache, and when each was last changed."""
    return {entry.name: entry.stat().st_mtime_ns for entry in (tmp_path / "home" / "cache").iterdir()}


def notices(events: list[Any]) -> str:
    return "\n".join(notice.message for notice in of(Notice, events))


# --------------------------------------------------------------------------- the cache
def test_a_corpus_is_prepared_once(tmp_path: Path, corpus: Path) -> None:
    config, run = make_run(tmp_path, fields(corpus), "first")
    first = train(config, run)
    made = cache(tmp_path)
    assert sorted(name.split("-")[0] for name in made) == ["tokenizer", "tokens"]
    config, run = make_run(tmp_path, fields(corpus), "second")
    second = train(config, run)
    assert cache(tmp_path) == made
    assert [step.loss for step in of(Step, first)] == [step.loss for step in of(Step, second)]
    for name in made:  # it can be deleted, and damaged
        entry = tmp_path / "home" / "cache" / name
        if entry.is_dir():
            (entry / "train.source.bin").write_bytes(b"")
        else:
            entry.unlink()
    config, run = make_run(tmp_path, fields(corpus), "third")
    assert [step.loss for step in of(Step, train(config, run))] == [step.loss for step in of(Step, first)]
    assert cache(tmp_path).keys() == made.keys()
    assert (tmp_path / "home" / "cache").stat().st_mode & 0o077 == 0


def test_another_content_or_way_of_reading_is_another_corpus(tmp_path: Path, corpus: Path) -> None:
    config, run = make_run(tmp_path, fields(corpus))
    train(config, run)
    made = cache(tmp_path).keys()
    (corpus / "train.en").write_text((corpus / "train.en").read_text().replace("dog", "fox"))
    again = train(parse_config(fields(corpus, max_steps=5), "test"), run)
    assert "the corpus is not the one that this run began with" in notices(again)
    assert len(cache(tmp_path).keys() - made) == 1  # tokenised anew, by the run's own tokenizer
    shorter = fields(corpus)
    shorter["data"]["max_tokens"] = 12
    config, run = make_run(tmp_path, shorter, "shorter")
    assert "the corpus is not" not in notices(train(config, run))
    assert len(cache(tmp_path).keys() - made) == 3


def test_it_is_told_how_far_a_preparation_is(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "PATIENCE", 0.0)
    config, run = make_run(tmp_path, fields(corpus))
    events = train(config, run)
    told = of(Preparing, events)
    assert [event.stage for event in told if event.stage != "tokenizer"] == [
        *["reading"] * 4,
        *["tokens"] * 2,
    ]
    assert all(0 <= event.done <= event.total for event in told)
    assert told[-1].done == told[-1].total > 0
    assert isinstance(events[len(told)], RunStarted)


def test_a_run_can_be_stopped_while_its_corpus_is_prepared(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "PATIENCE", 0.0)
    config, run = make_run(tmp_path, fields(corpus))
    inbox, events = ControlInbox(run), []
    for event in Trainer(config, run).run():
        events.append(event)
        if isinstance(event, Preparing) and event.stage == "tokens":
            inbox.send("save")
            inbox.send("stop")
    assert [(done.command, done.ok) for done in of(CommandDone, events)] == [("save", False), ("stop", True)]
    assert isinstance(events[-1], RunEnded) and events[-1].reason == "stopped"
    assert [name.split("-")[0] for name in cache(tmp_path)] == ["tokenizer"]  # nothing half made


def test_bad_lines_are_one_sentence_and_leave_nothing(tmp_path: Path, corpus: Path) -> None:
    (corpus / "train.de").write_text("\n".join(["ein Satz"] * 49))
    config, run = make_run(tmp_path, fields(corpus))
    with pytest.raises(ValueError, match=r"train\.en has 50 lines but .*train\.de has 49"):
        train(config, run)
    (corpus / "train.de").write_bytes(b"gut\n\xff\n")
    with pytest.raises(ValueError, match=r"train\.de, line 2: not UTF-8"):
        train(config, run)
    assert cache(tmp_path) == {}


def test_a_home_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = make_run(tmp_path, fields(corpus))
    (tmp_path / "file").touch()
    monkeypatch.setenv("TFM_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(ValueError, match=r"cannot create .*cache.*; set TFM_HOME"):
        train(config, run)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_pairs_as_json_lines_train_like_two_files(tmp_path: Path, corpus: Path, suffix: str) -> None:
    config, run = make_run(tmp_path, fields(corpus), "lines")
    losses = [step.loss for step in of(Step, train(config, run))]
    lines = "".join(json.dumps({"t": {"en": s, "de": t}}) + "\n" for s, t in sentence_pairs(50)).encode()
    path = corpus / f"pairs.jsonl{suffix}"
    path.write_bytes(gzip.compress(lines) if suffix else lines)
    made = fields(corpus)
    made["data"] = {
        "train": str(path), "valid": str(path), "format": "jsonl", "vocab_size": 400,
        "source_field": "t.en", "target_field": "t.de", "target_language": "de",
    }  # fmt: skip
    config, run = make_run(tmp_path, made, "objects")
    assert [step.loss for step in of(Step, train(config, run))] == losses


def test_a_long_text_is_one_document_whose_end_is_held_out(tmp_path: Path) -> None:
    text = "\n".join(SENTENCES * 4)
    (tmp_path / "text").write_text(text)
    made = language_fields(
        "causal-lm", {"train": str(tmp_path / "text"), "format": "text", "valid_fraction": 0.2}, max_steps=2
    )
    config, run = make_run(tmp_path, made)
    trainer = Trainer(config, run)
    events = list(trainer.run())
    assert "no validation set" not in notices(events)
    assert of(Evaluated, events)
    stream = [1, *trainer.task.tokenizer.encode(text), 2]
    cut = int(len(stream) * 0.8)
    rows = [trainer.task.train, trainer.task.valid]  # type: ignore[attr-defined]
    found = [[int(token) for row in part for token in row.ids[row.predicted]] for part in rows]
    assert found == [stream[1:cut], stream[cut + 1 :]]


MEMORY = """
import resource, sys
from pathlib import Path
from tests.conftest import make_checkpoint
from tfm.core.checkpoint import load_checkpoint
from tfm.train.config import parse_config
from tfm.train.preparation import Base, prepare
from tfm.train.tasks.causal_lm import CausalLM
checkpoint = load_checkpoint(make_checkpoint(Path(sys.argv[1]), "decoder-only"))
base = Base(checkpoint.tokenizer, checkpoint.config, {})
for path in sys.argv[2:]:
    raw = {"name": "x", "objective": "causal-lm", "model": {}, "data": {"train": path, "format": "text"}}
    config = parse_config(raw, "test")
    for _ in prepare(config, CausalLM.corpus(config), base):
        pass
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    for name, megabytes in (("small", 16), ("large", 64)):
        line = " ".join(SENTENCES[:5]) + "\n"
        (tmp_path / name).write_text(line * (megabytes * 1_000_000 // len(line)))
    paths = [str(tmp_path / name) for name in ("checkpoint", "small", "large")]
    ran = subprocess.run([sys.executable, "-c", MEMORY, *paths], capture_output=True, text=True, check=True)
    small, large = map(int, ran.stdout.split())
    assert large - small < 24_000  # kilobytes, of a text of 48,000 more and about 20 million tokens


# --------------------------------------------------------------------------- where a run begins
def test_a_run_can_start_from_a_checkpoint_of_another(tmp_path: Path, corpus: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TFM_HOME", str(tmp_path))  # runs are found by their names
    config, first = make_run(tmp_path, fields(corpus, max_steps=4, save_every=2), "first")
    train(config, first)
    for name, source in ((first.id, "step-000004"), (f"{first.id}/step-000002", "step-000002")):
        forked = fields(corpus, max_steps=1, init_from=name)
        forked["optim"]["learning_rate"] = 1e-12
        forked["data"]["vocab_size"] = 300  # the tokenizer is the checkpoint's
        config, run = make_run(tmp_path, forked, "fork")
        events = train(config, run)
        assert of(RunStarted, events)[0].resumed_from is None and "[model]" not in notices(events)
        before = load_checkpoint(first.path / source)
        after = load_checkpoint(run.checkpoint_path(1))
        assert after.tokenizer.fingerprint == before.tokenizer.fingerprint
        for one, other in zip(before.model.parameters(), after.model.parameters(), strict=True):
            assert one.sub(other).abs().max() < 1e-6


def test_what_a_run_starts_from_settles_its_architecture(tmp_path: Path) -> None:
    folder = make_checkpoint(
        tmp_path / "start", "decoder-only", positions="rotary", n_kv_heads=2, scale_embeddings=False
    )
    (tmp_path / "lines").write_text("\n".join(SENTENCES))
    made = language_fields(
        "causal-lm", {"train": str(tmp_path / "lines")}, max_steps=3, save_every=2, init_from=str(folder)
    )
    made["model"]["dropout"] = 0.25
    config, run = make_run(tmp_path, made, "tuned")
    events = train(config, run)
    assert "the architecture is that of start; not what [model] says: d_model, n_kv_heads, d_ff" in notices(
        events
    )
    tuned = load_checkpoint(run.checkpoint_path(2)).config
    assert tuned == load_checkpoint(folder).config.replace(dropout=0.25)
    (folder / "config.json").unlink()  # not needed once the run has a checkpoint of its own
    again = train(parse_config(made | {"loop": made["loop"] | {"max_steps": 5}}, "test"), run)
    assert of(RunStarted, again)[0].resumed_from == 3 and again[-1].reason == "finished"  # type: ignore[union-attr]


def test_going_back_to_the_beginning_is_to_what_it_started_from(tmp_path: Path, corpus: Path) -> None:
    config, first = make_run(tmp_path, fields(corpus, max_steps=4), "first")
    train(config, first)
    made = fields(corpus, max_steps=6, init_from=str(first.checkpoint_path(4)))
    made["guard"] = {"skip": False, "lower_by": 1.0}
    config, clean = make_run(tmp_path, made, "clean")
    train(config, clean)
    config, troubled = make_run(tmp_path, made, "troubled")

    def spoil(trainer: Trainer, inbox: ControlInbox) -> None:
        trainer.model.decoder_norm.weight.data.fill_(float("nan"))

    train(config, troubled, {3: spoil})
    assert same_weights(clean.checkpoint_path(6), troubled.checkpoint_path(6))


def test_what_a_run_cannot_start_from_is_one_sentence(tmp_path: Path, corpus: Path) -> None:
    folder = make_checkpoint(tmp_path / "decoder", "decoder-only")
    config, run = make_run(tmp_path, fields(corpus, init_from=str(folder)), "wrong")
    with pytest.raises(ValueError, match="is of the family decoder-only, but translation trains"):
        train(config, run)
    with pytest.raises(ValueError, match=r"loop\.init_from: no checkpoint 'nothing'"):
        find_initial("nothing")


def test_what_earlier_versions_wrote_can_be_read() -> None:
    old = {
        "step": 200, "epoch": 1, "batch": 67, "tokens": 600_000, "seconds": 61.5,
        "best_value": -2.5, "best_step": 200, "evaluations_since_best": 0, "learning_rate_override": None,
        "override_until": 0,
    }  # fmt: skip
    progress = msgspec.json.decode(msgspec.json.encode(old), type=Progress)
    assert (progress.step, progress.prompts, progress.guard.losses, progress.corpus) == (200, (), [], "")
