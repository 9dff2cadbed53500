"""Small corpora and configs for real, short training runs."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file

from tfm.train.config import TrainConfig, parse_config
from tfm.train.control_inbox import ControlInbox
from tfm.train.events import AnyTrainEvent, Step
from tfm.train.loop import Trainer
from tfm.train.resolve import to_toml
from tfm.train.run_dir import RunDir

Kind = TypeVar("Kind")

NOUNS = [
    ("man", "Mann"),
    ("dog", "Hund"),
    ("boy", "Junge"),
    ("bird", "Vogel"),
    ("tree", "Baum"),
    ("car", "Wagen"),
]
VERBS = [("sees", "sieht"), ("has", "hat"), ("wants", "will"), ("paints", "malt"), ("finds", "findet")]
COLOURS = [("red", "roten"), ("blue", "blauen"), ("green", "grünen"), ("old", "alten"), ("small", "kleinen")]


def sentence_pairs(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Different English sentences with their only right German translation."""
    rng, pairs = random.Random(seed), {}
    while len(pairs) < count:
        subject, verb, colour, thing = (rng.choice(words) for words in (NOUNS, VERBS, COLOURS, NOUNS))
        english = f"The {subject[0]} {verb[0]} a {colour[0]} {thing[0]}."
        pairs[english] = f"Der {subject[1]} {verb[1]} einen {colour[1]} {thing[1]}."
    return list(pairs.items())


def write_pairs(folder: Path, count: int = 50) -> None:
    pairs = sentence_pairs(count)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.en").write_text("".join(f"{source}\n" for source, _ in pairs))
    (folder / "train.de").write_text("".join(f"{target}\n" for _, target in pairs))
    (folder / "train.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in pairs))


def translation_fields(folder: Path, **loop: Any) -> dict[str, Any]:
    """A config as decoded TOML: a small model on the 50 pairs of ``write_pairs``."""
    return {
        "name": "tiny",
        "objective": "translation",
        "data": {
            "train_source": str(folder / "train.en"),
            "train_target": str(folder / "train.de"),
            "valid_source": str(folder / "train.en"),
            "valid_target": str(folder / "train.de"),
            "target_language": "de",
            "vocab_size": 400,
        },
        "model": {
            "d_model": 64,
            "n_heads": 4,
            "d_ff": 128,
            "n_encoder_layers": 2,
            "n_decoder_layers": 2,
            "dropout": 0.0,
            "max_positions": 64,
        },
        "optim": {"learning_rate": 3e-3, "warmup_steps": 20, "label_smoothing": 0.1},
        "loop": {
            "max_steps": 20,
            "batch_tokens": 400,
            "log_every": 5,
            "eval_every": 10,
            "save_every": 5,
            "bleu_sentences": 10,
            "precision": "fp32",
            "average_last": 0,
            **loop,
        },
    }


def language_fields(objective: str, data: dict[str, Any], **loop: Any) -> dict[str, Any]:
    """A config as decoded TOML: a small decoder or encoder."""
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


def make_run(tmp_path: Path, fields: dict[str, Any], name: str = "tiny") -> tuple[TrainConfig, RunDir]:
    config = parse_config(fields, "test config")
    return config, RunDir.create(to_toml(config), name, tmp_path / "runs")


def of(kind: type[Kind], events: Iterable[object]) -> list[Kind]:
    return [event for event in events if isinstance(event, kind)]


def train(
    config: TrainConfig, run: RunDir, at: dict[int, Callable[[Trainer, ControlInbox], object]] | None = None
) -> list[AnyTrainEvent]:
    """Train to the end; ``at`` says what is done, once, when a step is told of."""
    trainer, inbox, events, still = Trainer(config, run, resume=True), ControlInbox(run), [], dict(at or {})
    for event in trainer.run():
        events.append(event)
        if isinstance(event, Step) and event.step in still:
            still.pop(event.step)(trainer, inbox)
    return events


def same_weights(a: Path, b: Path) -> bool:
    """Whether two checkpoints hold the same model, bit for bit."""
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (a, b))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
