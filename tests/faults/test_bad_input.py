"""Every bad input a person may bring, given to the real executable: status 2, one sentence, nothing lost.

The table is the test. A case makes its files in an empty folder, in which the command is then run, and says
which words the sentence must hold: the file, the line or the key, and what is wrong with it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import TINY

EXECUTABLE = [sys.executable, "-m", "tfm.tui.cli"]
TRANSLATE = ["translate", "-m", "model"]
TRAIN = ["train", "tiny.toml", "--detach"]
EVAL = ["eval", "-m", "model", "--source", "pairs.en", "--target", "pairs.de"]


class Case(NamedTuple):
    name: str
    arguments: list[str]
    words: list[str]  # of the sentence
    spoil: Callable[[Path], object] = lambda folder: None  # makes the bad input in a folder of good ones
    stdin: bytes = b""
    lines_out: int = 0  # written before the bad input was met
    environment: dict[str, str] = {}


def edit_json(path: str, **fields: object) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        (folder / "model" / "MANIFEST.json").unlink()  # or it would be what notices
        content = json.loads((folder / path).read_text())
        (folder / path).write_text(json.dumps(content | fields))

    return spoil


def write(path: str, content: str | bytes) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        (folder / path).write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def truncate(path: str, size: int, manifest: bool = True) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        os.truncate(folder / path, size)
        if not manifest:
            (folder / "model" / "MANIFEST.json").unlink()

    return spoil


def without(path: str) -> Callable[[Path], object]:
    return lambda folder: (folder / path).unlink()


CASES = [
    # checkpoints
    Case("no checkpoint of that name", ["translate", "-m", "nowhere", "x"], ["no checkpoint 'nowhere'"]),
    Case("a folder that is no checkpoint", ["translate", "-m", "empty", "x"],
         ["empty", "config.json"], lambda folder: (folder / "empty").mkdir()),
    Case("weights cut short", [*TRANSLATE, "x"], ["model.safetensors", "bytes instead of"],
         truncate("model/model.safetensors", 5000)),
    Case("weights cut short, no manifest", [*TRANSLATE, "x"], ["model.safetensors", "damaged"],
         truncate("model/model.safetensors", 5000, manifest=False)),
    Case("weights missing", [*TRANSLATE, "x"], ["model.safetensors is missing"],
         without("model/model.safetensors")),
    Case("tokenizer missing", [*TRANSLATE, "x"], ["tokenizer.json is missing"],
         without("model/tokenizer.json")),
    Case("config is no JSON", [*TRANSLATE, "x"], ["config.json"], write("model/config.json", '{"family": ')),
    Case("manifest is no JSON", [*TRANSLATE, "x"], ["MANIFEST.json"], write("model/MANIFEST.json", "{")),
    Case("config with an unknown key", [*TRANSLATE, "x"], ["config.json", "n_hands"],
         edit_json("model/config.json", n_hands=4)),
    Case("config that does not fit the weights", [*TRANSLATE, "x"], ["model.safetensors"],
         edit_json("model/config.json", d_ff=48)),
    Case("tokenizer is no tokenizer", [*TRANSLATE, "x"], ["tokenizer.json"],
         edit_json("model/tokenizer.json", model={"type": "BPE"})),
    # texts
    Case("empty text", [*TRANSLATE, ""], ["the text is empty"]),
    Case("blank text", [*TRANSLATE, "   "], ["the text is empty"]),
    Case("text that is too long", [*TRANSLATE, "a" * 100_000], ["text is too long", "100,000 characters"]),
    Case("line that is too long", TRANSLATE, ["line 3", "too long", "100,000 characters"],
         stdin=b"A man.\n\n" + b"a" * 100_000 + b"\nA dog.\n", lines_out=2),
    Case("bytes that are not UTF-8", TRANSLATE, ["line 2 of stdin", "not valid UTF-8", "0xe9"],
         stdin=b"A man.\ncaf\xe9\nA dog.\n", lines_out=1),
    # options
    Case("unknown option", [*TRANSLATE, "--beams", "3", "x"], ["--beams", "did you mean '--beam'?"]),
    Case("value out of range", [*TRANSLATE, "--top-p", "2", "x"], ["top_p must lie in [0, 1], not 2.0"]),
    Case("device that is not there", [*TRANSLATE, "--device", "cuda:77", "x"], ["--device cuda:77"]),
    # training configs
    Case("no config", ["train", "nowhere.toml"], ["no config file at nowhere.toml"]),
    Case("config is no TOML", TRAIN, ["tiny.toml", "TOML"], write("tiny.toml", "name = ")),
    Case("config is not UTF-8", TRAIN, ["tiny.toml"], write("tiny.toml", b'name = "caf\xe9"')),
    Case("unknown key", TRAIN, ["tiny.toml", "n_hands"],
         write("tiny.toml", TINY.replace("n_heads", "n_hands"))),
    Case("wrong type", TRAIN, ["tiny.toml", "d_model", "int"],
         write("tiny.toml", TINY.replace("d_model = 32", 'd_model = "wide"'))),
    Case("unknown key by --set", [*TRAIN, "--set", "loop.max_step=3"], ["max_step"]),
    Case("wrong type by --set", [*TRAIN, "--set", "loop.max_steps=many"], ["max_steps"]),
    Case("--set without a value", [*TRAIN, "--set", "loop.max_steps"], ["section.key=value"]),
    Case("sizes that do not fit", [*TRAIN, "--set", "model.n_heads=3"], ["n_heads"]),
    Case("no layers", [*TRAIN, "--set", "model.n_decoder_layers=0"],
         ["tiny.toml: model", "n_decoder_layers of at"]),
    Case("corpus missing", TRAIN, ["data.train_source", "pairs.en"], without("pairs.en")),
    Case("corpora of unequal length", TRAIN, ["pairs.en has 25 lines", "pairs.de has 2"],
         write("pairs.de", "a\nb\n")),
    Case("corpus that is not UTF-8", TRAIN, ["pairs.de, line 2", "UTF-8"],
         write("pairs.de", b"a\ncaf\xe9\n" + b"a\n" * 23)),
    Case("runs in a place that cannot be written", TRAIN, ["cannot create a run", "TFM_HOME"],
         environment={"TFM_HOME": "pairs.en/below"}),
    Case("resume of no run", ["train", "--resume", "nowhere"], ["no run 'nowhere'"]),
    # evaluation
    Case("test files of unequal length", EVAL, ["pairs.en has 25 lines", "pairs.de has 2"],
         write("pairs.de", "a\nb\n")),
    Case("test file missing", EVAL, ["pairs.de"], without("pairs.de")),
    Case("test file that is not UTF-8", EVAL, ["pairs.en, line 1", "UTF-8"], write("pairs.en", b"caf\xe9\n")),
    Case("test file that is no gzip", EVAL, ["pairs.en.gz"],
         lambda folder: (folder / "pairs.en").rename(folder / "pairs.en.gz")),
    Case("empty test files", EVAL, ["no sentences"],
         lambda folder: [write(name, "")(folder) for name in ("pairs.en", "pairs.de")]),
    Case("output that cannot be written", [*EVAL, "--output", "pairs.en/out"], ["pairs.en/out"]),
    # runs
    Case("attach to no run", ["attach", "nowhere"], ["no run 'nowhere'"]),
    Case("stop of no run", ["stop", "nowhere"], ["no run 'nowhere'"]),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, tiny_config: Path, tiny_translator: Path) -> Path:
    """A folder in which everything is as it should be: a model, a corpus, a config."""
    assert tiny_config.parent == tmp_path
    shutil.copytree(tiny_translator, tmp_path / "model")
    return tmp_path


@pytest.mark.parametrize("case", CASES, ids=[case.name.replace(" ", "-") for case in CASES])
def test_bad_input_is_one_sentence(case: Case, folder: Path) -> None:
    case.spoil(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = subprocess.run(
        [*EXECUTABLE, *case.arguments],
        input=case.stdin,
        capture_output=True,
        cwd=folder,
        env={**os.environ, **case.environment},
        timeout=120,
    )
    err = done.stderr.decode()
    assert done.returncode == 2, err
    assert err.startswith("tfm-tui")
    assert err.count("\n") == 1 and err.endswith("\n")
    assert "Traceback" not in err
    for word in case.words:
        assert word in err
    assert len(done.stdout.splitlines()) == case.lines_out
    for path, content in before.items():
        assert path.read_bytes() == content  # what was there is as it was


def test_the_good_input_is_good(folder: Path) -> None:
    """The files that the cases spoil pass when nobody spoils them."""
    for arguments in ([*EVAL, "--beam", "1", "--limit", "2"], [*TRAIN, "--set", "loop.max_steps=1"]):
        done = subprocess.run([*EXECUTABLE, *arguments], capture_output=True, cwd=folder, timeout=120)
        assert done.returncode == 0, done.stderr.decode()
