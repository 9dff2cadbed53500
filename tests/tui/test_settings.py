"""What the app remembers: kept field by field, never lost, never in the way of the start."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from tfm.tui.app import TfmApp
from tfm.tui.settings import Settings, SettingsFile

from .driving import NO_ENGINE, painted, until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "settings.json"


def changed(file: SettingsFile, **fields: object) -> None:
    file.change(msgspec.structs.replace(file.settings, **fields))
    file.save()


def test_what_changes_is_there_at_the_next_start(path: Path) -> None:
    file = SettingsFile(path)
    assert file.settings == Settings() and not file.problems
    file.save()
    assert not path.exists()  # nothing changed, nothing written
    changed(file, theme="tfm-light")
    assert SettingsFile(path).settings == Settings(theme="tfm-light")
    assert json.loads(path.read_text()) == {"theme": "tfm-light"}
    assert not file.unsaved and path.stat().st_mode & 0o777 == 0o600


def test_two_windows_do_not_undo_one_another(path: Path) -> None:
    first, second = SettingsFile(path), SettingsFile(path)
    changed(first, theme="tfm-light")
    changed(second, welcomed=True)
    assert SettingsFile(path).settings == Settings(theme="tfm-light", welcomed=True)


def test_fields_of_another_version_stay(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('{"of_tomorrow": {"a": [1]}, "theme": "x"}')
    file = SettingsFile(path)
    assert file.settings.theme == "x" and not file.problems
    changed(file, theme="y")
    assert json.loads(path.read_text()) == {"of_tomorrow": {"a": [1]}, "theme": "y"}


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b'{"theme": "x"', b"[1]", b"\xff\xfe", b"null", b'{"theme": ' + b"[" * 10_000, b"\x00" * 99],
)
def test_a_damaged_file_is_told_of_and_kept(path: Path, damage: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(damage)
    file = SettingsFile(path)
    assert file.settings == Settings()
    assert len(file.problems) == 1 and "\n" not in file.problems[0] and str(path) in file.problems[0]
    assert path.read_bytes() == damage  # untouched until there is something to write
    changed(file, welcomed=True)
    assert path.with_name("settings.damaged-1.json").read_bytes() == damage
    assert SettingsFile(path).settings == Settings(welcomed=True)


def test_one_bad_value_costs_no_other(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('{"theme": 3, "welcomed": true, "of_tomorrow": 1}')
    file = SettingsFile(path)
    assert file.settings == Settings(welcomed=True)
    assert len(file.problems) == 1 and "theme" in file.problems[0]
    changed(file, reduced_motion=True)
    again = SettingsFile(path)
    assert again.settings == Settings(welcomed=True, reduced_motion=True) and not again.problems
    assert "of_tomorrow" in path.read_text()
    assert "3" in path.with_name("settings.damaged-1.json").read_text()


def test_a_folder_that_cannot_be_written_loses_nothing(tmp_path: Path) -> None:
    blocked = tmp_path / "a-file"
    blocked.write_text("")
    file = SettingsFile(blocked / "settings.json")
    file.change(Settings(theme="y"))
    with pytest.raises(OSError):
        file.save()
    assert file.unsaved and file.settings.theme == "y"


def test_the_document_names_every_field() -> None:
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text("utf-8")
    section = text.split("## Settings")[1].split("\n## ")[0]
    assert not [name for name in Settings.__struct_fields__ if f"`{name}`" not in section]


async def test_the_theme_is_remembered(tmp_path: Path) -> None:
    app = TfmApp(NO_ENGINE)
    file = tmp_path / "settings.json"
    async with app.run_test() as pilot:
        app.theme = "tfm-light"
        await until(pilot, lambda: "tfm-light" in file.read_text(), "the file")
    again = TfmApp(NO_ENGINE)
    async with again.run_test():
        assert again.theme == "tfm-light"


async def test_a_bad_file_does_not_break_the_start(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"theme": "no-such-theme", "welcomed": "perhaps [b]"}')
    app = TfmApp(NO_ENGINE)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: "welcomed" in painted(app), "the sentence", 20)
        assert app.theme == "tfm-dark"
