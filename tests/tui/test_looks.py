"""Themes, sixteen colours and none, reduced motion, the first-run hint: looks that are chosen and kept."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from rich.segment import Segment
from textual.color import Color
from textual.widgets import Input

from tfm.tui import themes
from tfm.tui.app import _THEMES, TfmApp
from tfm.tui.no_color import NoColours
from tfm.tui.palette import palette
from tfm.tui.screens.prompt import Prompt
from tfm.tui.screens.translate import TranslateScreen

from .driving import NO_ENGINE, driven, painted, until
from .terminal import APP, Terminal

COLOUR = re.compile(rb"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[0-9;]*)?m")
MANY = re.compile(rb"\x1b\[[0-9;]*[34]8;[25];")  # 256 colours, or all of them


def contrast(one: str, other: str) -> float:
    """Of WCAG 2: from 1 (the same) to 21 (black on white)."""

    def luminance(color: Color) -> float:
        parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in color.normalized]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    light, dark = sorted((luminance(Color.parse(one)), luminance(Color.parse(other))), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(
    ("theme", "least", "least_faint"),
    [
        (themes.DARK, 4.5, 3.0),
        (themes.LIGHT, 4.5, 3.0),
        (themes.CONTRAST, 7.0, 7.0),
        (themes.CONTRAST_LIGHT, 7.0, 7.0),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_texts_can_be_read_on_their_background(theme: themes.Theme, least: float, least_faint: float) -> None:
    """WCAG: 4.5 for text, 7 for its enhanced level; 3 for what only repeats what is said elsewhere."""
    texts = [theme.foreground, theme.accent, theme.secondary, theme.error, theme.variables["quiet"]]
    for page in (theme.background, theme.panel):
        assert page is not None
        for text in texts:
            assert text is not None and contrast(text, page) >= least, (theme.name, text)
        assert contrast(theme.variables["faint"], page) >= least_faint


def test_without_colours_states_still_differ() -> None:
    """What is chosen, marked, removed, live or here is told by more than its colour."""
    app = TfmApp(NO_ENGINE)
    looks = palette(app.get_css_variables())
    page = Color.parse(themes.DARK.background or "")
    base = Segment("x", looks[""]).style

    def attributes(name: str) -> tuple[bool | None, ...]:
        assert base is not None
        segment = NoColours().apply([Segment("x", base + looks[name])], page)[0]
        style = segment.style
        assert style is not None and style.color is None and style.bgcolor is None
        return style.bold, style.underline, style.strike, bool(style.reverse), style.dim

    plain = attributes("")
    states = [attributes(name) for name in ("selected", "mark", "gone", "live", "here")]
    assert len(set(states)) == len(states) and plain not in states


async def test_themes_are_chosen_from_the_palette_and_kept(tmp_path: Path) -> None:
    assert set(_THEMES) == {theme.name for theme in themes.ALL}
    for name in _THEMES:
        app = TfmApp(NO_ENGINE)
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda app=app: isinstance(app.screen, TranslateScreen), "the mode")
            commands = {command.title: command.callback for command in app.get_system_commands(app.screen)}
            commands[f"Colours: {name}"]()
            await pilot.pause(0.1)
            assert app.theme == name and "Translate" in painted(app)
        assert json.loads((tmp_path / "settings.json").read_text()).get("theme", "tfm-dark") == name
        assert TfmApp(NO_ENGINE).theme == name


async def test_reduced_motion(monkeypatch: pytest.MonkeyPatch) -> None:
    async with driven(TranslateScreen, None) as (screen, pilot):
        app = pilot.app
        assert isinstance(app, TfmApp)
        commands = {command.title: command.callback for command in app.get_system_commands(screen)}
        commands["Reduced motion"]()
        assert app.animation_level == "none"
        await pilot.press("tab", "S")
        await until(pilot, lambda: isinstance(app.screen, Prompt), "the prompt")
        assert not app.screen.query_one(Input).cursor_blink
    assert TfmApp(NO_ENGINE).animation_level == "none"
    monkeypatch.setenv("TFM_REDUCED_MOTION", "0")
    assert TfmApp(NO_ENGINE).animation_level == "full"
    monkeypatch.setenv("TFM_REDUCED_MOTION", "1")
    assert TfmApp(NO_ENGINE).animation_level == "none"


@pytest.mark.parametrize("way", ["f9", "ctrl+p", "f3", "send"])
async def test_the_first_run_hint_goes_for_good(way: str, tmp_path: Path) -> None:
    (tmp_path / "settings.json").unlink()
    app = TfmApp(NO_ENGINE)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "New here?" in painted(app), "the hint")
        await pilot.press("x")
        assert "New here?" in painted(app)
        await pilot.press(*(["enter"] if way == "send" else [way]))
        await until(pilot, lambda: "New here?" not in painted(app), "the hint to go")
    assert json.loads((tmp_path / "settings.json").read_text())["welcomed"] is True
    again = TfmApp(NO_ENGINE)
    async with again.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "^P commands" in painted(again), "the keys")
        assert "New here?" not in painted(again)


def test_errors_may_go_to_a_file(tmp_path: Path) -> None:
    """`tfm-tui 2>log` is an app on the screen and a log without its drawing."""
    log = tmp_path / "log"
    with Terminal(("sh", "-c", f"exec {shlex.join(APP)} 2>{shlex.quote(str(log))}")) as terminal:
        terminal.wait_for("German")
        terminal.press("ctrl+q")
        assert terminal.wait_to_end() == 0
    assert log.read_bytes() == b""


def test_it_draws_in_utf8_whatever_the_locale_says(tmp_path: Path) -> None:
    with Terminal(environment={"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}) as terminal:
        terminal.wait_for("╭─ English")
        terminal.press("ctrl+q")
        assert terminal.wait_to_end() == 0


def test_no_color_sends_no_colour(tmp_path: Path) -> None:
    with Terminal(environment={"NO_COLOR": "1"}) as terminal:
        terminal.wait_for("German")
        terminal.press("tab", "T", "f5")
        terminal.wait_for("No run yet")
        assert not COLOUR.search(bytes(terminal.raw))
        assert b"\x1b[1;4mTrain" in terminal.raw  # where we are: bold and underlined


def test_sixteen_colours_are_the_terminals_own(tmp_path: Path) -> None:
    with Terminal(environment={"TERM": "xterm", "COLORTERM": ""}) as terminal:
        terminal.wait_for("German")
        terminal.press("f5")
        terminal.wait_for("No run yet")
        assert not MANY.search(bytes(terminal.raw)) and COLOUR.search(bytes(terminal.raw))
        terminal.press("ctrl+q")
        assert terminal.wait_to_end() == 0
    assert "theme" not in json.loads((tmp_path / "settings.json").read_text())  # nobody chose one
