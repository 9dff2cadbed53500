"""Pictures of every mode at three sizes and in three looks: what is painted, cell by cell.

A picture is a text file: the screen as it reads, then the looks of its runs, a letter each. After a change
that is meant, look at the difference and run `pytest tests/tui/test_pictures.py --snapshot-update`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode
from textual.pilot import Pilot

from tests.tui.driving import until
from tfm.tui.app import TfmApp
from tfm.tui.screens.chat import ChatScreen
from tfm.tui.screens.fill import FillScreen
from tfm.tui.screens.lab import LabScreen
from tfm.tui.screens.train import TrainScreen
from tfm.tui.screens.translate import TranslateScreen
from tfm.tui.widgets.cells import cells_of

ENGINE = (sys.executable, str(Path(__file__).with_name("scripted_engine.py")))
SIZES = ((80, 24), (120, 40), (200, 60))
LOOKS = ("dark", "light", "no-colour")
Play = Callable[[Pilot[int]], Awaitable[None]]


class Picture(SingleFileSnapshotExtension):
    """One text file a picture."""

    _write_mode = WriteMode.TEXT
    file_extension = _file_extension = "txt"


# --------------------------------------------------------------------------- what a person did
async def translated(pilot: Pilot[int]) -> None:
    screen = pilot.app.screen
    assert isinstance(screen, TranslateScreen)
    await until(pilot, lambda: screen.session.info, "the model")
    screen.source.text = "A man in a blue shirt is standing on a ladder."
    await pilot.press("enter")
    await until(pilot, lambda: screen.exchange is not None and screen.exchange.ended, "the translation")
    await pilot.press("escape", "left", "left")


async def chatted(pilot: Pilot[int]) -> None:
    screen = pilot.app.screen
    assert isinstance(screen, ChatScreen)
    await until(pilot, lambda: screen.session.info, "the model")
    screen.message.text = "What do you think of rain?"
    await pilot.press("enter")
    await until(pilot, lambda: len(screen.path) == 2 and not screen.running, "the reply")
    await pilot.press("tab", "left")


async def masked(pilot: Pilot[int]) -> None:
    screen = pilot.app.screen
    assert isinstance(screen, FillScreen)
    await until(pilot, lambda: screen.gap is not None and screen.gap.candidates, "candidates")
    await pilot.press("enter", "2")
    await until(pilot, lambda: screen.gaps.gaps[0].taken, "a taken word")


async def looked(pilot: Pilot[int]) -> None:
    screen = pilot.app.screen
    assert isinstance(screen, LabScreen)
    await until(pilot, lambda: screen.reading is not None, "the reading")
    await pilot.press("right", "right")


async def watched(pilot: Pilot[int]) -> None:
    screen = pilot.app.screen
    assert isinstance(screen, TrainScreen)
    await until(pilot, lambda: "captions-1124" in words(pilot), "the list of runs")
    await pilot.press("enter")
    await until(pilot, lambda: "saved step-000400" in words(pilot), "the run")


async def listed(pilot: Pilot[int]) -> None:
    await until(pilot, lambda: "captions-mlm" in words(pilot), "the models")
    await pilot.press("down")


MODES: dict[str, Play] = {
    "translate": translated,
    "chat": chatted,
    "fill": masked,
    "lab": looked,
    "train": watched,
    "models": listed,
}


# --------------------------------------------------------------------------- the picture
def words(pilot: Pilot[int]) -> str:
    return "\n".join(strip.text for strip in pilot.app.screen._compositor.render_strips())


def picture(pilot: Pilot[int]) -> str:
    """The text of the screen; below it, for each row, how many cells have which look."""
    letters: dict[str, str] = {}
    rows: list[str] = []
    for strip in pilot.app.screen._compositor.render_strips():
        row = tuple((segment.text, str(segment.style)) for segment in strip if segment.text)
        looks = [style for _, style in cells_of(row)]
        runs: list[tuple[str, int]] = []
        for look in looks:
            if runs and runs[-1][0] == look:
                runs[-1] = (look, runs[-1][1] + 1)
            else:
                runs.append((look, 1))
        named = [(letters.setdefault(look, chr(ord("a") + len(letters))), count) for look, count in runs]
        rows.append(" ".join(f"{letter}{count}" for letter, count in named))
    legend = "\n".join(f"{letter}  {look}" for look, letter in letters.items())
    text = "\n".join(line.rstrip() for line in words(pilot).split("\n"))
    return f"{text}\n\n" + "\n".join(rows) + f"\n\n{legend}\n"


async def settled(pilot: Pilot[int]) -> str:
    """The picture once it does not change any more."""
    last, since = "", time.monotonic()
    while time.monotonic() - since < 0.8:
        await pilot.pause(0.1)
        now = picture(pilot)
        if now != last:
            last, since = now, time.monotonic()
    return last


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "settings.json").write_text('{"welcomed": true}')
    monkeypatch.setenv("TFM_HOME", str(tmp_path))
    monkeypatch.setattr("tfm.tui.app.BOX_EVERY", 3600.0)  # the figures of a machine come when they come
    for name in ("NO_COLOR", "COLORTERM", "TEXTUAL_FPS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize(("columns", "rows"), SIZES, ids=lambda number: str(number))
@pytest.mark.parametrize("mode", MODES)
async def test_picture(
    mode: str,
    columns: int,
    rows: int,
    look: str,
    snapshot: SnapshotAssertion,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if look == "no-colour":
        monkeypatch.setenv("NO_COLOR", "1")
    app = TfmApp(ENGINE, mode=mode)
    if look == "light":
        app.theme = "tfm-light"
    async with app.run_test(size=(columns, rows)) as pilot:
        await until(pilot, lambda: getattr(app.screen, "MODE", "") == mode, "the mode")
        await MODES[mode](pilot)
        seen = await settled(pilot)
    assert os.environ["TFM_HOME"] not in seen
    assert seen == snapshot(extension_class=Picture)
