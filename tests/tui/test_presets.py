"""One's own presets on disk: kept, found, renamed, deleted; files that are none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfm.core.sampling.settings import NEUTRAL, PRESETS, TRANSFORMERS_ORDER
from tfm.tui.presets import Found, NameTaken, PresetFolder, checked

MINE = NEUTRAL.replace(
    temperature=0.85, xtc_chance=0.5, logit_bias={5: 2.0}, banned=(7, 9), order=TRANSFORMERS_ORDER[::-1]
)


@pytest.fixture
def folder(tmp_path: Path) -> PresetFolder:
    return PresetFolder(tmp_path / "presets")


def test_what_is_kept_is_found_again_to_the_last_setting(folder: PresetFolder) -> None:
    assert folder.read() == Found()
    assert folder.save("  für Prosa ", MINE) == "für Prosa"
    found = PresetFolder(folder.folder).read()
    assert found.own == {"für Prosa": MINE} and found.name_of(MINE) == "für Prosa"
    assert list(found.all) == [*PRESETS, "für Prosa"]
    assert folder.get("für Prosa") == MINE and folder.get("greedy") == PRESETS["greedy"]
    assert folder.path("für Prosa").stat().st_mode & 0o777 == 0o600


def test_no_preset_takes_the_place_of_another_unasked(folder: PresetFolder) -> None:
    folder.save("mine", MINE)
    with pytest.raises(NameTaken):
        folder.save("mine", NEUTRAL)
    assert folder.get("mine") == MINE
    folder.save("mine", NEUTRAL, over=True)
    assert folder.get("mine") == NEUTRAL
    folder.save("other", MINE)
    with pytest.raises(NameTaken):
        folder.rename("other", "mine")
    assert folder.rename("other", "third") == "third"
    assert folder.read().own == {"mine": NEUTRAL, "third": MINE}
    folder.delete("third")
    folder.delete("third")  # another window was faster
    assert list(folder.read().own) == ["mine"]
    with pytest.raises(ValueError, match="cannot be renamed"):
        folder.rename("third", "fourth")


@pytest.mark.parametrize(
    "name", ["", " ", "../x", "a/b", ".hidden", "-x", "x" * 41, "a\nb", "x.", "\x1b[31m", "Greedy", "own"]
)
def test_names_that_would_do_harm_are_refused(folder: PresetFolder, name: str) -> None:
    with pytest.raises(ValueError):
        folder.save(name, MINE)
    assert not folder.folder.exists()


@given(st.text(max_size=50))
def test_a_name_that_will_do_is_a_file_in_the_folder(name: str) -> None:
    try:
        good = checked(name)
    except ValueError as error:
        assert "\n" not in str(error) or "\n" in name
    else:
        path = PresetFolder(Path("/presets")).path(good)
        assert path.parent == Path("/presets") and os.path.normpath(path) == str(path)
        assert checked(good) == good


def test_files_that_are_no_presets_are_told_of_and_hide_nothing(folder: PresetFolder) -> None:
    folder.save("mine", MINE)
    (folder.folder / "torn.json").write_bytes(folder.path("mine").read_bytes()[:50])
    (folder.folder / "range.json").write_text('{"format":"tfm-preset","settings":{"top_p":7}}')
    (folder.folder / "newer.json").write_text('{"format":"tfm-preset","settings":{"magic":1}}')
    (folder.folder / "binary.json").write_bytes(b"\xff\xfe\x00")
    (folder.folder / "huge.json").write_bytes(b" " * (2 << 20))
    (folder.folder / "greedy.json").write_bytes(folder.path("mine").read_bytes())
    (folder.folder / ".tmp-x.json").write_text("{")
    (folder.folder / "hand.json").write_text('{"format":"tfm-preset","settings":{"temperature":0.5}}')
    (folder.folder / "folder.json").mkdir()
    found = folder.read()
    assert found.own == {"hand": NEUTRAL.replace(temperature=0.5), "mine": MINE}
    assert sorted(found.problems) == ["binary", "folder", "huge", "newer", "range", "torn"]
    assert "top_p must lie in [0, 1]" in found.problems["range"] and "magic" in found.problems["newer"]
    assert all("\n" not in problem for problem in found.problems.values())
    assert found.all["greedy"] == PRESETS["greedy"]


def test_presets_go_round(folder: PresetFolder) -> None:
    folder.save("mine", MINE)
    found = folder.read()
    name: str | None = None
    seen = []
    for _ in range(len(PRESETS) + 2):
        name, settings = found.beside(name, 1)
        assert found.name_of(settings) == name
        seen.append(name)
    assert seen == [*PRESETS, "mine", "greedy"]
    assert found.beside("greedy", -1)[0] == "mine"
    assert found.name_of(MINE.replace(top_k=1)) is None


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written to"):
        PresetFolder(tmp_path / "file").save("mine", MINE)
