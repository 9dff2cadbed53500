"""Small real parts that many tests share: random checkpoints, a config that trains in seconds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples each time, so that a test that failed fails again, here and on any machine. Those who look
# for new ones: `make test-long`, or HYPOTHESIS_PROFILE=new.
settings.register_profile("same", derandomize=True)
settings.register_profile("new", derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads cost tiny models more than they give

SENTENCES = [
    "A man in a blue shirt is standing on a ladder cleaning a window.",
    "A group of men are loading cotton onto a truck.",
    "A boy wearing headphones sits on a woman's shoulders.",
    "Two men setting up a blue ice fishing hut on an iced over lake.",
    "A balding man wearing a red life jacket is sitting in a small boat.",
    "Ein Mann in einem blauen Hemd steht auf einer Leiter und putzt ein Fenster.",
    "Eine Gruppe von Männern lädt Baumwolle auf einen Lastwagen.",
    "Ein Junge mit Kopfhörern sitzt auf den Schultern einer Frau.",
    "Zwei Männer bauen eine blaue Eisfischerhütte auf einem zugefrorenen See auf.",
    "Ein Mann mit beginnender Glatze sitzt in einem kleinen Boot.",
]

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


def make_checkpoint(folder: Path, family: str, seed: int = 0, **fields: object) -> Path:
    """A checkpoint of a tiny model with random weights and a tokenizer trained on SENTENCES."""
    import torch

    from tfm.core.checkpoint import save_checkpoint
    from tfm.core.config import ModelConfig
    from tfm.core.model import build_model
    from tfm.core.tokenizer import Tokenizer

    tokenizer = Tokenizer.train(SENTENCES, vocab_size=400, min_frequency=2)
    config = ModelConfig.create(
        family=family,
        vocab_size=tokenizer.vocab_size,
        n_encoder_layers=0 if family == "decoder-only" else 2,
        n_decoder_layers=0 if family == "encoder-only" else 2,
        n_heads=4,
        max_positions=128,
        **{"d_model": 32, "d_ff": 64, "scale_embeddings": True, **tokenizer.special_ids, **fields},
    )
    torch.manual_seed(seed)
    training = {"scores": {"bleu": 12.5}, "languages": ["English", "German"]}
    card = f"# A tiny {family} model for tests\n\nRandom weights: it knows nothing.\n"
    return save_checkpoint(folder, build_model(config).eval(), config, tokenizer, card, training)


@pytest.fixture(scope="session")
def tiny_translator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder-decoder checkpoint folder; weights are random, so that it seldom ends by itself."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny-translator", "encoder-decoder")


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder-only checkpoint folder with rotary positions and grouped queries."""
    return make_checkpoint(
        tmp_path_factory.mktemp("checkpoints") / "tiny-decoder",
        "decoder-only",
        positions="rotary",
        n_kv_heads=2,
    )


@pytest.fixture(scope="session")
def tiny_filler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder-only checkpoint folder."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny-filler", "encoder-only")


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
