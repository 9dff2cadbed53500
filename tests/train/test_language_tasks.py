"""Causal and masked language modelling on real, small runs."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import SENTENCES
from tests.core.models import small_config, small_model
from tests.train.corpora import make_run, sentence_pairs
from tfm.core.chat import TEMPLATE_FILE
from tfm.core.checkpoint import load_checkpoint
from tfm.core.introspect import fill
from tfm.core.model import DecoderOnly
from tfm.core.tokenizer import Tokenizer
from tfm.train.batching import collate_rows
from tfm.train.config import DataConfig
from tfm.train.data import Row, dialogue_rows, read_dialogues, read_documents, split, text_rows
from tfm.train.events import Evaluated, RunEnded, Samples
from tfm.train.loop import Trainer
from tfm.train.tasks.causal_lm import rows_loss
from tfm.train.tasks.masked_lm import MASKED, N_SPECIAL, hide_tokens

TOKENIZER = Tokenizer.train(SENTENCES, vocab_size=400)
CPU = torch.device("cpu")


def fields(objective: str, data: dict[str, Any], **loop: Any) -> dict[str, Any]:
    layers = {"n_decoder_layers": 2} if objective == "causal-lm" else {"n_encoder_layers": 2}
    return {
        "name": "tiny",
        "objective": objective,
        "data": {"vocab_size": 400, "max_tokens": 64, **data},
        "model": {"d_model": 64, "n_heads": 4, "d_ff": 128, "dropout": 0.0, "max_positions": 64, **layers},
        "optim": {"learning_rate": 3e-3, "warmup_steps": 20, "label_smoothing": 0.0},
        "loop": {
            "max_steps": 150,
            "batch_tokens": 600,
            "eval_every": 75,
            "save_every": 75,
            "precision": "fp32",
            "average_last": 0,
            **loop,
        },
    }


def write_dialogues(path: Path, count: int = 30) -> Path:
    """Each question has its only right answer."""
    lines = []
    for question, answer in sentence_pairs(count):
        turns = [{"speaker": "A", "text": question}, {"speaker": "B", "text": answer}, "Good.\nBye."]
        lines.append(json.dumps({"turns": turns}))
    path.write_text("\n".join(lines))
    return path


def test_a_dialogue_model_learns_its_replies(tmp_path: Path) -> None:
    path = write_dialogues(tmp_path / "talk.jsonl")
    config, run = make_run(tmp_path, fields("causal-lm", {"train": str(path), "format": "dialogue"}))
    events = list(Trainer(config, run).run())
    assert isinstance(events[-1], RunEnded) and events[-1].reason == "finished"
    evaluations = [event for event in events if isinstance(event, Evaluated)]
    assert evaluations[-1].accuracy > 0.99
    samples = [event for event in events if isinstance(event, Samples)][-1].samples
    answers = dict(sentence_pairs(30))
    assert [sample.output for sample in samples] == [answers[sample.source] for sample in samples]
    checkpoint = run.checkpoints()[-1]
    assert (checkpoint / TEMPLATE_FILE).is_file()
    assert load_checkpoint(checkpoint).config.family == "decoder-only"


def test_a_masked_model_learns_to_fill(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(SENTENCES * 8))
    made = fields("masked-lm", {"train": str(path)}, max_steps=400, eval_every=400, save_every=400)
    config, run = make_run(tmp_path, made)
    events = list(Trainer(config, run).run())
    assert [event for event in events if isinstance(event, Evaluated)][-1].accuracy > 0.9
    _, masks = fill(load_checkpoint(run.checkpoints()[-1]), SENTENCES[0].replace("man", "[MASK]"), 3)
    assert masks[0].candidates[0].piece == " man"


def test_plain_text_and_resume_are_bitwise(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(SENTENCES * 4))
    for objective in ("causal-lm", "masked-lm"):
        made = fields(objective, {"train": str(path), "format": "lines"}, max_steps=9, save_every=4)
        made["model"]["dropout"] = 0.1
        config, whole = make_run(tmp_path, made, f"{objective}-whole")
        list(Trainer(config, whole).run())
        config, parts = make_run(tmp_path, made, f"{objective}-parts")
        for event in Trainer(config, parts).run():
            if getattr(event, "path", "") == "step-000004":
                break
        torch.manual_seed(99)
        list(Trainer(config, parts, resume=True).run())
        ours, theirs = (load_checkpoint(run.checkpoint_path(9)).model for run in (parts, whole))
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a, b)


@given(count=st.integers(1, 12), length=st.integers(8, 70))
@settings(deadline=None, max_examples=30)
def test_text_rows_predict_every_token_once(count: int, length: int) -> None:
    rows = text_rows([[text] for text in SENTENCES[:count]], TOKENIZER, length, 1, 2)
    predicted = np.concatenate([row.ids[row.predicted] for row in rows]).tolist()
    stream = [token for text in SENTENCES[:count] for token in (1, *TOKENIZER.encode(text), 2)]
    assert predicted == stream[1:]
    assert all(len(row.ids) <= length for row in rows)
    for row, following in pairwise(rows):
        assert row.ids[-1] == following.ids[0]


@given(turns=st.lists(st.sampled_from(SENTENCES), min_size=2, max_size=12), length=st.integers(24, 120))
@settings(deadline=None, max_examples=50)
def test_dialogue_rows_predict_every_reply_once(turns: list[str], length: int) -> None:
    rows = dialogue_rows([turns], TOKENIZER, length, 1, 2)
    replies = [TOKENIZER.encode(turn)[: (length - 1) // 2 - 1] for turn in turns[1:]]
    predicted = np.concatenate([row.ids[row.predicted] for row in rows]).tolist()
    assert predicted == [token for reply in replies for token in (*reply, 2)]
    assert all(len(row.ids) <= length and row.ids[0] == 1 and row.ids[-1] == 2 for row in rows)


def test_rows_in_a_batch_equal_rows_alone() -> None:
    model = small_model("decoder-only")
    assert isinstance(model, DecoderOnly)
    rows = [
        Row(np.array([1, 5, 6, 2]), np.array([False, False, True, True])),
        Row(np.array([1, 9, 8, 7, 6, 2]), np.array([False, False, False, True, True, True])),
    ]
    assert collate_rows(rows, model.config).labels_N.tolist() == [6, 2, 7, 6, 2]
    whole = rows_loss(model, rows, 0.0, CPU, torch.float32)
    alone = [rows_loss(model, [row], 0.0, CPU, torch.float32) for row in rows]
    torch.testing.assert_close(whole.total, alone[0].total + alone[1].total, rtol=1e-5, atol=1e-4)


def test_hiding_follows_the_shares_of_the_paper() -> None:
    config = small_config("encoder-only", vocab_size=1000, mask_id=3)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 1000, (400, 100), generator=generator)
    real = torch.rand(400, 100, generator=generator) < 0.9
    shown, predicted = hide_tokens(ids, real, config, generator)
    candidates = real & (ids >= N_SPECIAL)
    assert not bool((predicted & ~candidates).any())
    assert torch.equal(shown[~predicted], ids[~predicted])
    n = int(predicted.sum())
    assert n / int(candidates.sum()) == pytest.approx(MASKED, abs=0.01)
    assert int((shown[predicted] == 3).sum()) / n == pytest.approx(0.8, abs=0.02)
    assert int((shown[predicted] == ids[predicted]).sum()) / n == pytest.approx(0.1, abs=0.02)


def test_at_least_one_token_is_hidden() -> None:
    config = small_config("encoder-only", mask_id=3)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        _, predicted = hide_tokens(torch.tensor([[1, 7, 2]]), torch.ones(1, 3).bool(), config, generator)
        assert predicted.tolist() == [[False, True, False]]


def test_split_holds_out_a_share_by_position() -> None:
    kept, held = split(list(range(5000)), 0.1)
    assert sorted(kept + held) == list(range(5000))
    assert len(held) == pytest.approx(500, rel=0.15)
    assert split(list(range(5000)), 0.1) == (kept, held)
    assert split([1, 2], 0.0) == ([1, 2], [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"turns": "no"}', "line 1: no list of turns"),
        ('{"turns": ["a", 3]}', "line 1: no text under"),
        ('\n{"turns"', "line 2"),
        ('{"turns": ["only one"]}', "no document"),
    ],
)
def test_broken_dialogues_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "talk.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_dialogues(str(path), DataConfig(format="dialogue"))


def test_documents_and_the_drop_pattern(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    path.write_text('{"body": "keep me"}\n{"body": "call 555-1234"}\n')
    data = DataConfig(format="jsonl", text_field="body", drop_pattern=r"\d{3}-\d{4}")
    assert read_documents(str(path), data) == ([["keep me"]], 1)
    with pytest.raises(ValueError, match="line 1: no text under 'text'"):
        read_documents(str(path), DataConfig(format="jsonl"))
