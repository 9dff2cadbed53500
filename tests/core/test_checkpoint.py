"""The checkpoint folder: what is written is what is read, and damage is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import SENTENCES
from tests.core.models import small_model
from tfm.core.checkpoint import CheckpointError, load_checkpoint, save_checkpoint, verify_checkpoint
from tfm.core.tokenizer import Tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizer = Tokenizer.train(SENTENCES, vocab_size=320)
    model = small_model(vocab_size=tokenizer.vocab_size)
    return save_checkpoint(tmp_path / "model", model, model.config, tokenizer, "# A test\n", {"step": 7})


def test_round_trip(folder: Path) -> None:
    first = load_checkpoint(folder)
    assert first.training == {"step": 7}
    verify_checkpoint(folder)
    ids = torch.randint(4, 61, (2, 5))
    again = save_checkpoint(folder, first.model, first.config, first.tokenizer, "# Again\n")
    second = load_checkpoint(again)
    assert torch.equal(first.model(ids, ids), second.model(ids, ids))
    assert sorted(p.name for p in folder.parent.iterdir()) == ["model"]  # nothing temporary is left
    assert not second.model.training


def test_tied_tensors_stand_once(folder: Path) -> None:
    names = load_file(folder / "model.safetensors").keys()
    assert "source_embedding.tokens.weight" in names
    assert not [name for name in names if "target_embedding" in name or "projection" in name]


def test_bf16_halves_the_file(folder: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(folder)
    small = save_checkpoint(
        tmp_path / "bf16", loaded.model, loaded.config, loaded.tokenizer, "", dtype=torch.bfloat16
    )
    assert (small / "model.safetensors").stat().st_size < 0.6 * (folder / "model.safetensors").stat().st_size
    assert load_checkpoint(small).dtype is torch.float32
    assert load_checkpoint(small, dtype=torch.bfloat16).dtype is torch.bfloat16


def damage(folder: Path, name: str, data: bytes | None) -> None:
    if data is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(data)


@pytest.mark.parametrize("with_manifest", [True, False])
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("model.safetensors", None),
        ("model.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "),
        ("model.safetensors", b"nonsense"),
        ("config.json", None),
        ("config.json", b"{"),
        ("config.json", b'{"family": "encoder-decoder"}'),
        ("tokenizer.json", b"{}"),
    ],
)
def test_damage_is_named(folder: Path, name: str, data: bytes | None, with_manifest: bool) -> None:
    damage(folder, name, data)
    if not with_manifest:
        (folder / "MANIFEST.json").unlink()
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    message = str(caught.value)
    assert str(folder) in message and "\n" not in message
    assert name in message or "tensor" in message


def test_truncation_and_flipped_bits(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="SHA-256"):
        verify_checkpoint(folder)
    path.write_bytes(data[:-100])
    with pytest.raises(CheckpointError, match="bytes instead of"):
        load_checkpoint(folder)
    (folder / "MANIFEST.json").unlink()
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(folder)


def test_numbers_that_are_not_finite(folder: Path) -> None:
    loaded = load_checkpoint(folder)
    with torch.no_grad():
        next(loaded.model.parameters()).flatten()[0] = float("nan")
    save_checkpoint(folder, loaded.model, loaded.config, loaded.tokenizer, "")
    with pytest.raises(CheckpointError, match="not finite"):
        verify_checkpoint(folder)


@pytest.mark.parametrize("hostile", ["../escape", "/etc/passwd"])
def test_manifest_cannot_point_outside(folder: Path, hostile: str) -> None:
    manifest = {"format": 1, "files": {hostile: {"size": 1, "sha256": ""}}}
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="no plain file name"):
        load_checkpoint(folder)


def test_wrong_tensor_is_named(folder: Path) -> None:
    (folder / "MANIFEST.json").unlink()
    weights = load_file(folder / "model.safetensors")
    weights["decoder_norm.weight"] = torch.ones(3)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: tensor decoder_norm\.weight has shape"):
        load_checkpoint(folder)


def test_unwritable_place(tmp_path: Path, folder: Path) -> None:
    loaded = load_checkpoint(folder)
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot write"):
        save_checkpoint(blocker / "model", loaded.model, loaded.config, loaded.tokenizer, "")
    assert blocker.read_text() == "in the way"
