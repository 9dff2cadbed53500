"""Paths in prompts go on by themselves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.widgets import Input

from tfm.tui.paths import completed
from tfm.tui.screens.prompt import Prompt
from tfm.tui.screens.train import TrainScreen

from .driving import NO_ENGINE, driven, until


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    for name in ("recipes/deep", "runs", ".hidden"):
        (folder / name).mkdir(parents=True)
    for name in ("mine.toml", "mine.txt", "recipes/a.toml", ".secret.toml", "bell\a.toml"):
        (folder / name).write_text("")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("m", "mine.toml"), ("mine.t", "mine.toml"), ("mine.toml", None), ("mine.tx", None),
        ("r", "recipes/"), ("ru", "runs/"), ("recipes/", "recipes/a.toml"), ("recipes/d", "recipes/deep/"),
        ("./m", "./mine.toml"), (".h", ".hidden/"), (".s", ".secret.toml"), ("b", None), ("nowhere/x", None),
        ("", None), ("~nobody-/", None), ("mine.toml/", None), ("x\0", None),
    ],
)  # fmt: skip
def test_the_first_that_begins_so(here: Path, text: str, found: str | None) -> None:
    assert completed(text, (".toml",)) == found


def test_only_folders_where_no_file_is_wanted(here: Path) -> None:
    assert completed("m") is None and completed("r") == "recipes/"
    assert completed(f"{here}/r") == f"{here}/recipes/"


def test_a_home_is_looked_into(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    assert completed("~/m", (".toml",)) == "~/mine.toml"


@given(st.text(max_size=8))
def test_no_text_is_too_strange(text: str) -> None:
    found = completed(text, (".toml",))
    assert found is None or (found.startswith(text) and os.path.exists(Path(found).expanduser()))


async def test_tab_completes_the_path_of_a_config(here: Path) -> None:
    async with driven(TrainScreen, NO_ENGINE) as (_, pilot):
        await pilot.press("n")
        await until(pilot, lambda: isinstance(pilot.app.screen, Prompt), "the prompt")
        line = pilot.app.screen.query_one(Input)
        for key, wanted in (("r", "recipes/"), ("d", "recipes/deep/")):
            await pilot.press(key)
            await until(pilot, lambda wanted=wanted: line._suggestion == wanted, "the suggestion")
            await pilot.press("tab")
            assert line.value == wanted and line.cursor_position == len(wanted)
        await pilot.press("tab")  # nothing to add, and nowhere else to go
        assert line.value == "recipes/deep/" and line.has_focus
