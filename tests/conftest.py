"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

from pathlib import Path

import pytest

TINY = """
name = "tiny"
[data]
train_source = "pairs.en"
train_target = "pairs.de"
vocab_size = 320
[model]
d_model = 32
n_heads = 2
d_ff = 64
n_encoder_layers = 1
n_decoder_layers = 1
[optim]
warmup_steps = 10
[loop]
max_steps = 30
batch_tokens = 200
log_every = 1
eval_every = 1000000
save_every = 10
bleu_sentences = 0
sample_sentences = 1
average_last = 0
threads = 1
precision = "fp32"
device = "cpu"
"""


@pytest.fixture
def tiny_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config that trains on 25 sentence pairs in milliseconds a step; runs go to a home of its own."""
    monkeypatch.setenv("TFM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = ["dog", "man", "cat", "girl", "tree"]
    lines = [f"a {a} sees a {b} ." for a in words for b in words]
    (tmp_path / "pairs.en").write_text("\n".join(lines) + "\n")
    (tmp_path / "pairs.de").write_text("\n".join(line[::-1] for line in lines) + "\n")
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path
