"""``import`` and ``export``: out and in again, and the sentences for what cannot be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.conftest import SENTENCES, make_checkpoint


@pytest.fixture
def translator(tmp_path: Path) -> Path:
    return make_checkpoint(
        tmp_path / "ours", "encoder-decoder", sinusoidal_layout="halves-t2t", position_offset=1
    )


def test_out_and_in_again(run: Run, translator: Path, tmp_path: Path) -> None:
    out = run("export", translator, tmp_path / "there", "--json")
    assert out.status == 0, out.err
    assert out.records[0]["architecture"] == "M2M100ForConditionalGeneration"
    came = run("import", tmp_path / "there", "again", "--json")
    assert came.status == 0, came.err
    [record] = came.records
    assert (record["family"], record["source"]) == ("encoder-decoder", "local")
    before = run("translate", "-m", translator, "--beam", "2", SENTENCES[0])
    after = run("translate", "-m", "again", "--beam", "2", SENTENCES[0])
    assert before.out == after.out
    assert "again" in run("models").out


def test_a_person_is_told_what_came(run: Run, translator: Path, tmp_path: Path) -> None:
    out = run("export", translator, tmp_path / "there")
    assert (out.status, out.out) == (0, "")
    assert "M2M100ForConditionalGeneration" in out.err
    came = run("import", tmp_path / "there", "again")
    assert (came.status, came.out) == (0, "")
    assert came.err.startswith("again: encoder-decoder, ")


def test_a_name_is_taken_only_on_demand(run: Run, translator: Path, tmp_path: Path) -> None:
    run("export", translator, tmp_path / "there")
    assert run("import", tmp_path / "there", "mine").status == 0
    again = run("import", tmp_path / "there", "mine")
    assert again.status == 2
    assert "there is a checkpoint mine already" in again.err
    assert run("import", tmp_path / "there", "mine", "--replace").status == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere at all", "new"), "there is no folder or file nowhere at all"),
        (("{tmp}", "new"), "is no Hugging Face folder: config.json is missing"),
        (("{tmp}/file.txt", "new"), "is a file; name the folder that it lies in, or a .gguf file"),
        (("{tmp}", "../new"), "name is a name and no path, not '../new'"),
        (("{tmp}", ".new"), "name is a name and no path"),
        (("{tmp}", ""), "name is a name and no path"),
        (("{tmp}", "en-de"), "there is a bundled checkpoint en-de"),
    ],
)
def test_import_refuses(run: Run, tmp_path: Path, arguments: tuple[str, str], words: str) -> None:
    (tmp_path / "file.txt").write_text("hello")
    refused = run("import", *(argument.format(tmp=tmp_path) for argument in arguments))
    assert refused.status == 2
    assert words in refused.err
    assert refused.err.count("\n") == 1


def test_a_hub_id_needs_the_client(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused = run("import", "someone/something", "new")
    assert refused.status == 2
    assert "pip install 'tfm-tui[hub]'" in refused.err


def test_a_hub_that_does_not_answer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="the hub's client is an extra")

    def fail(*_: object, **__: object) -> str:
        raise ConnectionError("no route to the hub\nand a second line")

    monkeypatch.setattr(hub, "snapshot_download", fail)
    refused = run("import", "someone/something", "new")
    assert refused.status == 2
    assert "someone/something is no folder here and cannot be fetched from the hub: no route" in refused.err
    assert refused.err.count("\n") == 1


def test_a_hub_that_answers(
    run: Run, translator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="the hub's client is an extra")
    run("export", translator, tmp_path / "there")
    asked: list[object] = []

    def fetch(repository: str, allow_patterns: list[str]) -> str:
        asked.extend([repository, *allow_patterns])
        return str(tmp_path / "there")

    monkeypatch.setattr(hub, "snapshot_download", fetch)
    came = run("import", "someone/something", "fetched")
    assert came.status == 0, came.err
    assert asked[0] == "someone/something"
    assert not [pattern for pattern in asked if str(pattern).endswith((".bin", ".pt", ".py"))]
    assert "from someone/something" in run("models").out


def test_export_refuses(run: Run, tiny_filler: Path, translator: Path, tmp_path: Path) -> None:
    refused = run("export", tiny_filler, tmp_path / "there")
    assert refused.status == 2
    assert "no published family has this architecture" in refused.err
    (tmp_path / "full").mkdir()
    refused = run("export", translator, tmp_path / "full")
    assert refused.status == 2
    assert "exists already" in refused.err
    assert run("export", "no-such-model", tmp_path / "there").status == 2
