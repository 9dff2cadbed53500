"""Text coloured by how sure the model was."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tfm.tui import confidence
from tfm.tui.app import TfmApp
from tfm.tui.palette import _UNSURE, unsure
from tfm.tui.screens.chat import ChatScreen
from tfm.tui.screens.translate import TranslateScreen
from tfm.tui.settings import SettingsFile
from tfm.tui.widgets.transcript import TurnView

from .driving import driven, painted, until

TOKENS = [("Ein", 0.95), (" Mann", 0.5), (" im", 0.2), (" Hut", 0.01)]
LOOKS = ["", "sure1", "sure2", "sure3"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TFM_HOME", str(tmp_path))
    return tmp_path


def test_a_look_for_each_chance() -> None:
    assert [confidence.look(math.log(chance)) for _, chance in TOKENS] == LOOKS
    assert confidence.look(None) == confidence.look(math.nan) == confidence.look(0.0) == ""
    assert confidence.look(-math.inf) == "sure3"


@pytest.mark.parametrize("terminal", list(_UNSURE))
def test_the_steps_differ_on_every_terminal(terminal: str) -> None:
    looks = unsure(terminal).values()
    assert len({str(look) for look in looks}) == 3
    if terminal == "none":  # by attributes alone
        assert all(look.color is None and (look.underline or look.reverse) for look in looks)


async def test_v_colours_a_translation_and_says_what_it_means(home: Path) -> None:
    async with driven(TranslateScreen, None) as (screen, pilot):
        screen.target.begin(1)
        for piece, chance in TOKENS:
            screen.target.append(0, piece, logprob=math.log(chance))
        screen.target.finish_all()
        assert screen.target.row(0) == (("Ein Mann im Hut", ""),)
        screen.target.focus()
        await pilot.pause()
        screen.target.select(0, None)
        await pilot.press("v")
        styles = {text.strip(): style for text, style in screen.target.row(0) if text.strip()}
        assert styles == {"Ein": "", "Mann": "sure1", "im": "sure2", "Hut": "sure3"}
        await until(pilot, lambda: "sure of it: 70% or more 40% 15% less" in painted(pilot.app), "the legend")
        app = pilot.app
        assert isinstance(app, TfmApp)
        await until(pilot, lambda: SettingsFile().settings.confidence, "the setting on disk")
        await pilot.press("v")
        assert screen.target.row(0) == (("Ein Mann im Hut", ""),)
        await until(pilot, lambda: "sure of it" not in painted(pilot.app), "no legend")


async def test_a_reply_is_coloured_while_it_is_written_and_after() -> None:
    async with driven(ChatScreen, None) as (screen, pilot):
        transcript = screen.transcript
        transcript.show([TurnView("you", ["Hello?"]), TurnView("m", [], live=True)])
        for piece, chance in TOKENS:
            transcript.append(1, piece, logprob=math.log(chance))
        await pilot.press("tab", "v")
        rows = [transcript.row(y) for y in range(transcript.n_rows)]
        spans = {text.strip(): style for row in rows for text, style in row}
        assert [spans[word] for word in ("Mann", "im", "Hut")] == LOOKS[1:]
