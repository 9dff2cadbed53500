"""Small real parts that many tests share: checkpoints made by our own code, with random weights."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
        d_model=32,
        n_heads=4,
        d_ff=64,
        max_positions=128,
        scale_embeddings=True,
        **tokenizer.special_ids,
        **fields,
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
