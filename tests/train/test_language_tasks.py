"""Causal and masked language modelling on real, small runs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import SENTENCES
from tests.core.models import small_config, small_model
from tests.train.corpora import language_fields, make_run, sentence_pairs, write_dialogues
from tfm.core.chat import TEMPLATE_FILE
from tfm.core.checkpoint import load_checkpoint
from tfm.core.introspect import fill
from tfm.core.model import DecoderOnly
from tfm.core.tokenizer import Tokenizer
from tfm.train.batching import collate_rows
from tfm.train.events import Evaluated, RunEnded, Samples
from tfm.train.loop import Trainer
from tfm.train.objectives import Loss
from tfm.train.rows import PackedRows, Row, dialogue_rows
from tfm.train.tasks.causal_lm import row_states
from tfm.train.tasks.masked_lm import MASKED, N_SPECIAL, hide_tokens
from tfm.train.tasks.scores import head_loss

TOKENIZER = Tokenizer.train(SENTENCES, vocab_size=400)
CPU = torch.device("cpu")


def test_a_dialogue_model_learns_its_replies(tmp_path: Path) -> None:
    path = write_dialogues(tmp_path / "talk.jsonl")
    config, run = make_run(tmp_path, language_fields("causal-lm", {"train": str(path), "format": "dialogue"}))
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
    made = language_fields("masked-lm", {"train": str(path)}, max_steps=300, eval_every=300, save_every=300)
    config, run = make_run(tmp_path, made)
    events = list(Trainer(config, run).run())
    assert [event for event in events if isinstance(event, Evaluated)][
        -1
    ].accuracy > 0.75  # of words that fit, one is right
    _, masks = fill(load_checkpoint(run.checkpoints()[-1]), SENTENCES[0].replace("man", "[MASK]"), 3)
    assert masks[0].candidates[0].piece == " man"


def test_plain_text_and_resume_are_bitwise(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(SENTENCES * 4))
    for objective in ("causal-lm", "masked-lm"):
        made = language_fields(objective, {"train": str(path), "format": "lines"}, max_steps=9, save_every=4)
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


@given(count=st.integers(0, 12), length=st.integers(4, 70))
@settings(deadline=None, max_examples=30)
def test_packed_rows_predict_every_token_once(count: int, length: int) -> None:
    stream = [token for text in SENTENCES[:count] for token in (1, *TOKENIZER.encode(text), 2)]
    rows = PackedRows(np.array(stream, dtype=np.uint16), length)
    predicted = [int(token) for row in rows for token in row.ids[row.predicted]]
    assert predicted == stream[1:]
    assert rows.lengths.tolist() == [len(row.ids) for row in rows]
    assert all(len(row.ids) <= length for row in rows)
    for row, following in pairwise(rows):
        assert row.ids[-1] == following.ids[0]
    assert [row.ids.tolist() for row in rows.head(2)] == [row.ids.tolist() for row in rows][:2]


@given(turns=st.lists(st.sampled_from(SENTENCES), min_size=2, max_size=12), length=st.integers(24, 120))
@settings(deadline=None, max_examples=50)
def test_dialogue_rows_predict_every_reply_once(turns: list[str], length: int) -> None:
    rows = dialogue_rows(TOKENIZER.encode_batch(turns), length, 1, 2)
    replies = [TOKENIZER.encode(turn)[: (length - 1) // 2 - 1] for turn in turns[1:]]
    predicted = np.concatenate([row.ids[row.predicted] for row in rows]).tolist()
    assert predicted == [token for reply in replies for token in (*reply, 2)]
    assert all(len(row.ids) <= length and row.ids[0] == 1 and row.ids[-1] == 2 for row in rows)


def row_loss(model: DecoderOnly, rows: list[Row]) -> Loss:
    batch = collate_rows(rows, model.config)
    return head_loss(model, row_states(model, batch), batch.labels_N, 0.0, torch.float32)


def test_rows_in_a_batch_equal_rows_alone() -> None:
    model = small_model("decoder-only")
    assert isinstance(model, DecoderOnly)
    rows = [
        Row(np.array([1, 5, 6, 2]), np.array([False, False, True, True])),
        Row(np.array([1, 9, 8, 7, 6, 2]), np.array([False, False, False, True, True, True])),
    ]
    assert collate_rows(rows, model.config).labels_N.tolist() == [6, 2, 7, 6, 2]
    whole = row_loss(model, rows)
    alone = [row_loss(model, [row]) for row in rows]
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
