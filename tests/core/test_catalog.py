"""What a list of checkpoints shows, and what it says of broken ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tfm.core import catalog


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_translator: Path) -> Path:
    """$TFM_HOME with one good checkpoint, ``mine``."""
    monkeypatch.setenv("TFM_HOME", str(tmp_path))
    shutil.copytree(tiny_translator, tmp_path / "checkpoints" / "mine")
    return tmp_path


def local(name: str) -> catalog.ModelInfo:
    return next(info for info in catalog.list_models() if info.source == "local" and info.name == name)


def test_a_good_checkpoint_is_described_from_its_files(home: Path) -> None:
    from tfm.core.checkpoint import load_checkpoint

    info = local("mine")
    checkpoint = load_checkpoint(home / "checkpoints" / "mine")
    assert info.problem == ""
    assert info.family == "encoder-decoder"
    assert info.n_parameters == sum(p.numel() for p in checkpoint.model.parameters())
    assert info.vocab_size == checkpoint.tokenizer.vocab_size
    assert info.size_bytes == (home / "checkpoints" / "mine" / "model.safetensors").stat().st_size
    assert info.scores == {"bleu": 12.5}
    assert info.languages == ("English", "German")
    assert info.summary == "A tiny encoder-decoder model for tests"


def test_names_paths_and_near_misses(home: Path, tmp_path: Path) -> None:
    folder = home / "checkpoints" / "mine"
    assert catalog.find_checkpoint("mine") == folder
    assert catalog.find_checkpoint(str(folder)) == folder
    with pytest.raises(catalog.NoSuchCheckpoint, match="did you mean mine"):
        catalog.find_checkpoint("mime")
    with pytest.raises(catalog.NoSuchCheckpoint, match="it holds mine"):
        catalog.find_checkpoint(str(home / "checkpoints"))
    for odd in ("", " ", "a\0b", "x" * 100_000, "../../nowhere"):
        with pytest.raises(catalog.NoSuchCheckpoint):
            catalog.find_checkpoint(odd)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.json", None, "config.json is missing"),
        ("config.json", b"{", "config.json"),
        ("config.json", b"{}", "config.json"),
        ("model.safetensors", None, "model.safetensors is missing"),
        ("model.safetensors", b"", "cut short"),
        ("model.safetensors", b"\xff" * 100, "cut short"),
        ("model.safetensors", (2).to_bytes(8, "little") + b"[]", "no valid safetensors header"),
        ("model.safetensors", (2).to_bytes(8, "little") + b"{}" + b"rest", "should be 10 bytes long"),
        ("tokenizer.json", None, "tokenizer.json is missing"),
        ("training.json", b"not json", "training.json"),
    ],
)
def test_a_broken_checkpoint_says_why_and_breaks_nothing_else(
    home: Path, file: str, content: bytes | None, said: str
) -> None:
    broken = home / "checkpoints" / "broken"
    shutil.copytree(home / "checkpoints" / "mine", broken)
    if content is None:
        (broken / file).unlink()
    else:
        (broken / file).write_bytes(content)
    assert said in local("broken").problem
    assert local("mine").problem == ""


def test_folders_that_are_no_checkpoints_are_not_listed(home: Path) -> None:
    (home / "checkpoints" / "notes").mkdir()
    (home / "checkpoints" / "notes" / "train.toml").write_text("")
    shutil.copytree(home / "checkpoints" / "mine", home / "checkpoints" / ".tmp-mine")
    (home / "checkpoints" / "file").write_text("")
    assert [info.name for info in catalog.list_models() if info.source == "local"] == ["mine"]


def test_a_truncated_weights_file_is_seen_without_reading_it(home: Path) -> None:
    weights = home / "checkpoints" / "mine" / "model.safetensors"
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size - 1)
    assert "bytes long and is" in local("mine").problem


def test_listing_loads_no_torch() -> None:
    code = (
        "import sys; from tfm.core.catalog import list_models; list_models(); print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


# --------------------------------------------------------------------------- models by their runs
@pytest.fixture
def trained(home: Path) -> Path:
    """A run with three checkpoints, the first of them the best, and a bookmark; its folder."""
    run = home / "runs" / "mine-1122-1503"
    run.mkdir(parents=True)
    (run / "config.toml").write_text("")
    (run / "best.json").write_text('{"step": 500, "value": -1.0}')
    for name in ("step-000500", "step-001000", "step-001500", "bookmark-good", "undone-step-000700-ab12"):
        shutil.copytree(home / "checkpoints" / "mine", run / name)
    (run / "step-001500" / "MANIFEST.json").unlink()  # not committed
    return run


@pytest.mark.parametrize(
    ("which", "folder"),
    [
        ("", "step-000500"),
        ("@newest", "step-001000"),
        ("@best", "step-000500"),
        ("@500", "step-000500"),
        ("@good", "bookmark-good"),
        ("/bookmark-good", "bookmark-good"),
    ],
)
def test_a_trained_model_is_named_by_its_run(trained: Path, which: str, folder: str) -> None:
    assert catalog.find_checkpoint(trained.name + which) == trained / folder
    assert catalog.find_checkpoint(str(trained) + which) == trained / folder


def test_what_a_run_has_come_to_is_the_better_of_its_average_and_its_best(trained: Path) -> None:
    average = shutil.copytree(trained / "bookmark-good", trained / "average")
    (average / "training.json").write_text('{"step": 1000}')
    for worth, wanted in ((-0.9, average), (-1.1, trained / "step-000500")):
        (trained / "best.json").write_text(f'{{"step": 500, "value": -1.0, "average": {worth}}}')
        assert catalog.find_checkpoint(trained.name) == wanted
    (trained / "best.json").unlink()
    assert catalog.find_checkpoint(trained.name) == average
    shutil.copytree(trained / "step-001000", trained / "step-002000")  # it was resumed
    assert catalog.find_checkpoint(trained.name) == trained / "step-002000"
    assert catalog.find_checkpoint(f"{trained.name}@average") == average


def test_runs_are_listed_and_near_misses_of_them_named(trained: Path) -> None:
    [info] = [info for info in catalog.list_models() if info.source == "run"]
    assert (info.name, info.path, info.problem) == (trained.name, str(trained / "step-000500"), "")
    assert catalog.describe(catalog.find_checkpoint(trained.name)).name == f"{trained.name}@500"
    assert catalog.describe(trained / "bookmark-good").name == f"{trained.name}@good"
    with pytest.raises(catalog.NoSuchCheckpoint, match=r"has no checkpoint 700; it has .*@500, .*@good"):
        catalog.find_checkpoint(f"{trained.name}@700")
    with pytest.raises(catalog.NoSuchCheckpoint, match=rf"did you mean .*{trained.name}"):
        catalog.find_checkpoint("mine-1122")
    for name in ("@best", f"{trained.name}@../step-000500", "x" * 5000 + "@best"):
        with pytest.raises(catalog.NoSuchCheckpoint):
            catalog.find_checkpoint(name)
