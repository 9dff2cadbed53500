"""Scores against values worked out by hand, files made by others, and slow twins."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tfm.core.checkpoint import Checkpoint
from tfm.core.config import ModelConfig
from tfm.core.model import build_model
from tfm.core.tokenizer import Tokenizer
from tfm.train.corpus_files import check_parallel, find_file, iter_lines, read_lines, read_parallel
from tfm.train.evaluate import (
    character_error_rate,
    edit_distance,
    moses_lines,
    perplexity_and_accuracy,
    translation_scores,
    word_error_rate,
)

MULTI30K = Path(__file__).parents[3] / "shared" / "data" / "multi30k"
needs_multi30k = pytest.mark.skipif(
    not MULTI30K.is_dir(), reason="the Multi30k data is not beside this repository"
)


# --------------------------------------------------------------------------- scores of texts
def test_a_perfect_translation_scores_full_marks() -> None:
    lines = ["Ein Mann steht auf einer Leiter.", "Zwei Hunde spielen im Schnee."]
    scores = translation_scores(lines, lines, "de")
    assert scores.bleu == pytest.approx(100.0)
    assert scores.chrf == pytest.approx(100.0)
    assert scores.tokenized_bleu == pytest.approx(100.0)
    assert (scores.cer, scores.wer, scores.n_sentences) == (0.0, 0.0, 2)


def test_bleu_by_hand() -> None:
    # 4/5 words, 3/4 pairs, 2/3 triples, 1/2 quadruples right; no length penalty
    scores = translation_scores(["a b c d e"], ["a b c d f"], "en")
    assert scores.bleu == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    # one word short: the same precisions but the last, times exp(1 - 5/4)
    scores = translation_scores(["a b c d"], ["a b c d f"], "en")
    assert scores.bleu == pytest.approx(100 * math.exp(1 - 5 / 4))


def test_the_plain_bleu_minds_case_and_the_tokenised_one_does_not() -> None:
    scores = translation_scores(["ein mann steht auf der leiter ."], ["Ein Mann steht auf der Leiter."], "de")
    assert scores.bleu < 50
    assert scores.tokenized_bleu == pytest.approx(100.0)
    assert "case:mixed" in scores.bleu_signature and "tok:13a" in scores.bleu_signature
    assert (
        "lc.norm.tok.de" in scores.tokenized_bleu_signature and "tok:none" in scores.tokenized_bleu_signature
    )
    assert "chrF2" in scores.chrf_signature


def test_prepared_references_are_used_as_they_are() -> None:
    scores = translation_scores(
        ["Ein Mann geht heim."], ["Etwas ganz anderes eben."], "de", ["ein mann geht heim ."]
    )
    assert scores.tokenized_bleu > 50 > scores.bleu
    with pytest.raises(ValueError, match="2 tokenised references do not fit 1 references"):
        translation_scores(["a"], ["a"], "de", ["a", "b"])


@pytest.mark.parametrize(("hypotheses", "references"), [(["a"], ["a", "b"]), ([], [])])
def test_lists_that_cannot_be_scored_are_refused(hypotheses: list[str], references: list[str]) -> None:
    with pytest.raises(ValueError, match=r"do not fit|no sentences"):
        translation_scores(hypotheses, references, "de")


@needs_multi30k
@pytest.mark.parametrize("language", ["en", "de", "fr"])
@pytest.mark.parametrize("split", ["val", "test_2016_flickr"])
def test_moses_lines_are_those_of_multi30k(split: str, language: str) -> None:
    raw = read_lines(MULTI30K / f"{split}.{language}")
    prepared = read_lines(MULTI30K / "lc-tok" / f"{split}.lc.norm.tok.{language}")
    assert moses_lines(raw, language) == prepared


def naive_distance(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
    return row[-1]


@given(st.text("abc", max_size=90), st.text("abcd", max_size=90))
def test_edit_distance_is_that_of_the_whole_table(a: str, b: str) -> None:
    assert edit_distance(a, b) == naive_distance(a, b)


def test_error_rates_by_hand() -> None:
    assert edit_distance("kitten", "sitting") == 3
    assert character_error_rate(["kitten", ""], ["sitting", "abc"]) == pytest.approx(6 / 10)
    assert word_error_rate(["the cat sat", "x"], ["the cat sat down", "x"]) == pytest.approx(1 / 5)
    assert word_error_rate(["a b c d e f"], ["a"]) == pytest.approx(5.0)  # may pass 1
    with pytest.raises(ValueError, match="hold no words"):
        word_error_rate(["a"], [" "])


# --------------------------------------------------------------------------- scores of models
TEXTS = [
    "a man in a blue shirt",
    "two dogs",
    "a",
    "the old woman walks along the long street",
    "dogs in a blue street",
]
PAIRS = list(zip(TEXTS, reversed(TEXTS), strict=True))


def tiny(family: str, **changes: object) -> Checkpoint:
    tokenizer = Tokenizer.train(TEXTS, 300)
    layers = {"encoder-decoder": (2, 2), "decoder-only": (0, 2), "encoder-only": (2, 0)}[family]
    fields = {
        "family": family, "vocab_size": tokenizer.vocab_size, "d_model": 32, "n_heads": 4, "d_ff": 64,
        "n_encoder_layers": layers[0], "n_decoder_layers": layers[1], "max_positions": 64,
    } | tokenizer.special_ids | changes  # fmt: skip
    torch.manual_seed(0)
    config = ModelConfig.create(**fields)
    return Checkpoint(build_model(config).eval(), config, tokenizer, Path())


def test_a_translation_model_is_scored_as_its_full_forward_says() -> None:
    checkpoint = tiny("encoder-decoder")
    config, tokenizer = checkpoint.config, checkpoint.tokenizer
    nll = hits = n_tokens = 0.0
    for source, target in PAIRS:
        source_ids = torch.tensor([[*tokenizer.encode(source), config.eos_id]])
        ids = torch.tensor([[config.start_id, *tokenizer.encode(target), config.eos_id]])
        logits = checkpoint.model(source_ids, ids[:, :-1])[0].log_softmax(-1)
        nll -= logits.gather(1, ids[0, 1:, None]).sum().item()
        hits += (logits.argmax(-1) == ids[0, 1:]).sum().item()
        n_tokens += ids.shape[1] - 1
    for batch_tokens in (1, 40, 10_000):
        scores = perplexity_and_accuracy(checkpoint, PAIRS, batch_tokens=batch_tokens)
        assert scores.loss == pytest.approx(nll / n_tokens, rel=1e-5)
        assert scores.perplexity == pytest.approx(math.exp(nll / n_tokens), rel=1e-4)
        assert scores.accuracy == pytest.approx(hits / n_tokens)
        assert (scores.n_tokens, scores.n_left_out) == (n_tokens, 0)


def test_scoring_leaves_training_mode_as_it_was() -> None:
    checkpoint = tiny("encoder-decoder", dropout=0.5)
    checkpoint.model.train()
    first, second = (perplexity_and_accuracy(checkpoint, PAIRS) for _ in range(2))
    assert first == second  # no dropout while scoring
    assert checkpoint.model.training


def test_a_long_text_is_read_in_windows_that_predict_each_token_once() -> None:
    checkpoint = tiny("decoder-only", max_positions=16)
    text = " ".join(TEXTS * 3)
    n_text = len(checkpoint.tokenizer.encode(text))
    assert n_text > 32
    scores = perplexity_and_accuracy(checkpoint, [text])
    assert scores.n_tokens == n_text + 1  # and the end
    wide = tiny("decoder-only", max_positions=512)
    assert perplexity_and_accuracy(wide, [text]).n_tokens == n_text + 1


def test_an_encoder_is_scored_on_masked_tokens_always_the_same() -> None:
    checkpoint = tiny("encoder-only")
    scores = perplexity_and_accuracy(checkpoint, TEXTS)
    assert scores == perplexity_and_accuracy(checkpoint, TEXTS)
    assert scores.loss == pytest.approx(
        perplexity_and_accuracy(checkpoint, TEXTS, batch_tokens=1).loss, rel=1e-5
    )
    n_tokens = sum(len(ids) for ids in checkpoint.tokenizer.encode_batch(TEXTS))
    assert 0.1 < scores.n_tokens / n_tokens < 0.25


def test_pairs_that_do_not_fit_are_counted() -> None:
    checkpoint = tiny("encoder-decoder", max_positions=12)
    scores = perplexity_and_accuracy(checkpoint, [("a", "a"), ("a " * 50, "a"), ("a", "a " * 50)])
    assert scores.n_left_out == 2
    with pytest.raises(ValueError, match="no token to predict"):
        perplexity_and_accuracy(checkpoint, [("a " * 50, "a")])


def test_examples_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="pairs of source and target"):
        perplexity_and_accuracy(tiny("encoder-decoder"), TEXTS)
    with pytest.raises(ValueError, match="on plain text"):
        perplexity_and_accuracy(tiny("decoder-only"), PAIRS)


# --------------------------------------------------------------------------- corpus files
def test_lines_are_read_as_they_were_written(tmp_path: Path) -> None:
    text = "Größe \u2028 one line\n\n한국어\r\nlast, without an end"
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(text.encode()))
    wanted = ["Größe \u2028 one line", "", "한국어", "last, without an end"]
    assert read_lines(tmp_path / "a.txt") == wanted
    assert read_lines(tmp_path / "b.txt") == wanted  # found with .gz
    assert list(iter_lines(tmp_path / "b.txt.gz")) == wanted
    (tmp_path / "empty").touch()
    assert read_lines(tmp_path / "empty") == []


def test_a_byte_that_is_no_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "latin1.txt").write_bytes("gut\nGröße\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin1\.txt, line 2: not UTF-8 \(byte 0xf6\)"):
        read_lines(tmp_path / "latin1.txt")


@pytest.mark.parametrize(
    "damage", [b"no gzip at all", gzip.compress(b"x\n" * 10_000)[:-12], b"\x1f\x8b\x08" + b"\0" * 40]
)
def test_a_damaged_gzip_file_is_one_sentence(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "a.gz").write_bytes(damage)
    with pytest.raises(ValueError, match=r"a\.gz"):
        read_lines(tmp_path / "a.gz")


def test_a_missing_file_or_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no file .*nothing"):
        find_file(tmp_path / "nothing")
    with pytest.raises(ValueError, match="is a folder"):
        find_file(tmp_path)


def test_files_of_unequal_length_are_named_with_their_counts(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1\n2\n")
    (tmp_path / "b").write_text("1\n")
    with pytest.raises(ValueError, match=r"a has 2 lines but .*b has 1"):
        read_parallel(tmp_path / "a", tmp_path / "b")
    check_parallel("a", 5, "b", 5)
