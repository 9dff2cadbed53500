"""``eval`` on small real checkpoints and on Multi30k's files."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.conftest import SENTENCES
from tfm.tui.commands.evaluate import prepared_reference

MULTI30K = Path(__file__).parents[3] / "shared" / "data" / "multi30k"


@pytest.fixture
def pairs(tmp_path: Path) -> list[object]:
    (tmp_path / "test.en").write_text("\n".join(SENTENCES[:5]) + "\n")
    (tmp_path / "test.de").write_text("\n".join(SENTENCES[5:]) + "\n")
    return ["--source", tmp_path / "test.en", "--target", tmp_path / "test.de"]


def test_a_translator_is_measured(
    run: Run, tiny_translator: Path, pairs: list[object], tmp_path: Path
) -> None:
    output = tmp_path / "out.de"
    ran = run("eval", "-m", tiny_translator, *pairs, "--beam", "2", "--output", output, "--json")
    assert ran.status == 0, ran.err
    [scores] = ran.records
    assert str(scores["bleu_signature"]).startswith("BLEU|nrefs:1|case:mixed|eff:no|tok:13a")
    assert str(scores["chrf_signature"]).startswith("chrF2|nrefs:1|case:mixed")
    assert "moses:lc.norm.tok.de" in str(scores["tokenized_bleu_signature"])
    assert (scores["n_sentences"], scores["beam"], scores["tokenized_target"]) == (5, 2, "")
    for name in ("bleu", "chrf", "tokenized_bleu", "cer", "wer", "loss", "perplexity", "accuracy", "seconds"):
        assert isinstance(scores[name], float)
    translated = run(
        "translate", "-m", tiny_translator, "--beam", "2", stdin=(tmp_path / "test.en").read_bytes()
    )
    assert output.read_text() == translated.out

    shown = run("eval", "-m", tiny_translator, *pairs, "--limit", "2").out
    assert "2 sentences, beam 5" in shown
    assert "made from --target by the Moses rules" in shown


def test_a_model_is_measured_on_text(run: Run, tiny_decoder: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.gz"
    text.write_bytes(gzip.compress("\n".join(SENTENCES).encode()))
    [scores] = run("eval", "-m", tiny_decoder, "--text", text, "--json").records
    assert "bleu" not in scores
    assert float(str(scores["perplexity"])) > 1
    assert "perplexity" in run("eval", "-m", tiny_decoder, "--text", text, "--limit", "3").out


def test_references_of_ones_own_are_taken(
    run: Run, tiny_translator: Path, pairs: list[object], tmp_path: Path
) -> None:
    own = tmp_path / "own.tok"
    own.write_text("a b c\n" * 5)
    options = ["-m", tiny_translator, *pairs, "--beam", "1", "--json"]
    [scores] = run("eval", *options, "--tokenized-target", own).records
    assert scores["tokenized_target"] == str(own)
    beside = tmp_path / "lc-tok"
    beside.mkdir()
    (beside / "test.lc.norm.tok.de.gz").write_bytes(gzip.compress(b"a b c\n" * 5))
    [found] = run("eval", *options).records
    assert found["tokenized_target"] == str(beside / "test.lc.norm.tok.de.gz")
    assert found["tokenized_bleu"] == scores["tokenized_bleu"]


@pytest.mark.skipif(not MULTI30K.is_dir(), reason="Multi30k is not at ../shared/data/multi30k")
def test_multi30k_brings_its_tokenised_references() -> None:
    expected = MULTI30K / "lc-tok" / "test_2016_flickr.lc.norm.tok.de.gz"
    for name in ("test_2016_flickr.de", "test_2016_flickr.de.gz"):
        assert prepared_reference(MULTI30K / name) == expected
    assert prepared_reference(MULTI30K / "test_2016_flickr.cs") is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "give --source and --target"),
        (["--source", "x"], "give --source and --target"),
        (["--text", "x", "--source", "y"], "--text goes without --source"),
        (["--source", "no.en", "--target", "no.de"], "no file no.en"),
    ],
)
def test_misuse_is_told_before_any_work(run: Run, options: list[str], sentence: str) -> None:
    ran = run("eval", "-m", "none", *options)
    assert ran.status == 2
    assert sentence in ran.err
