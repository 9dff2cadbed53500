"""The screens, driven through their keys, on a real engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.binding import Binding
from textual.events import Key
from textual.pilot import Pilot

from tfm.core.sampling.settings import PRESETS
from tfm.tui import keymap
from tfm.tui.app import TfmApp
from tfm.tui.screens.help import HelpScreen
from tfm.tui.screens.preset_list import PresetList
from tfm.tui.screens.prompt import Prompt
from tfm.tui.screens.stages import StagesScreen
from tfm.tui.screens.token_biases import TokenBiases
from tfm.tui.screens.train import TrainScreen
from tfm.tui.screens.train_runs import RunsRoom
from tfm.tui.screens.train_watch import WatchRoom
from tfm.tui.screens.translate import TranslateScreen
from tfm.tui.widgets.bars import KeyLine
from tfm.tui.widgets.lines import Lines
from tfm.tui.widgets.source_input import SourceInput
from tfm.tui.widgets.token_stream import TokenStream

HOSTILE = "\x1b]52;c;aGFja2Vk\x07 [@click=app.leave]leave[/] \u202eevil [b]x[/b]"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TFM_HOME", str(tmp_path))
    return tmp_path


async def until(pilot: Pilot[int], ready: Callable[[], object], what: str, seconds: float = 60) -> None:
    for _ in range(int(seconds * 20)):
        if ready():
            return
        await pilot.pause(0.05)
    raise AssertionError(f"waited {seconds:.0f} s for {what}")


@asynccontextmanager
async def translating(
    model: Path | None, size: tuple[int, int] = (80, 24)
) -> AsyncIterator[tuple[TranslateScreen, Pilot[int]]]:
    """The app in translate mode; without a model it has no engine either, and starts at once."""
    app = TfmApp(model=str(model)) if model else TfmApp(["/no-such-engine"])
    async with app.run_test(size=size) as pilot:
        screen = app.screen
        assert isinstance(screen, TranslateScreen)
        yield screen, pilot


def painted(app: TfmApp) -> str:
    """Everything on the screen, as it goes to the terminal."""
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


async def translate(screen: TranslateScreen, pilot: Pilot[int], text: str) -> None:
    screen.source.text = text
    await pilot.press("enter")
    await until(pilot, lambda: screen.exchange and screen.exchange.ended, "the translation")


async def test_translate_walk_and_recall(tiny_translator: Path) -> None:
    async with translating(tiny_translator) as (screen, pilot):
        await translate(screen, pilot, "A man in a blue shirt.")
        first = screen.exchange
        assert first is not None and not first.problem
        assert screen.target.text == first.text
        assert first.n_tokens == sum(len(done.tokens) for done in first.done if done)
        await pilot.press("tab", "left")
        assert screen.target.selected == (0, first.n_tokens - 2)
        await pilot.press("h", "home")
        assert screen.target.selected == (0, 0)
        await pilot.press("i")
        assert screen.source.has_focus
        await translate(screen, pilot, "Two men.\n\nA boy.")
        second = screen.exchange
        assert second is not None and second.places == [0, 2]
        assert len(second.text.split("\n")) == 3 and second.text.split("\n")[1] == ""
        assert screen.target.text == second.text
        await pilot.press("ctrl+up")
        assert screen.exchange is first and screen.source.text == first.source
        assert screen.target.text == first.text


async def test_knobs_act_on_the_next_generation(tiny_translator: Path) -> None:
    async with translating(tiny_translator) as (screen, pilot):
        await pilot.press("tab", *["T"] * 20, "K", "s")
        decoding = screen.panel.decoding
        assert decoding.settings == PRESETS["greedy"].replace(temperature=1.0, top_k=1)
        await pilot.press("k", "left_square_bracket", "right_square_bracket")
        await pilot.press("ctrl+l")
        await translate(screen, pilot, "A man.")
        assert screen.exchange is not None
        assert screen.exchange.decoding == screen.panel.decoding
        await pilot.press("tab", "d", "W")
        assert screen.panel.decoding.method == "beam" and screen.panel.decoding.beam_width == 6
        await pilot.press("ctrl+r")
        await until(pilot, lambda: screen.exchange and screen.exchange.ended, "the beam")
        assert screen.exchange is not None and screen.exchange.decoding.method == "beam"
        assert screen.target.text == screen.exchange.text


async def test_the_same_seed_makes_the_same_text(tiny_translator: Path) -> None:
    async with translating(tiny_translator) as (screen, pilot):
        await pilot.press("tab", *["T"] * 20, "S")
        assert isinstance(pilot.app.screen, Prompt)
        await pilot.press("x", "enter")
        await pilot.pause()
        assert isinstance(pilot.app.screen, Prompt)  # no number: told in place, and what was typed stays
        await pilot.press("backspace", "7", "enter")
        await until(pilot, lambda: pilot.app.screen is screen, "the prompt to close")
        assert screen.panel.decoding.seed == 7
        await translate(screen, pilot, "A man.") if screen.source.has_focus else await pilot.press("i")
        await translate(screen, pilot, "A man.")
        once = screen.exchange
        await pilot.press("ctrl+r")
        await until(
            pilot, lambda: screen.exchange is not once and screen.exchange and screen.exchange.ended, "again"
        )
        assert once is not None and screen.exchange is not None and once.text == screen.exchange.text


async def test_escape_keeps_what_is_there(tiny_translator: Path) -> None:
    async with translating(tiny_translator) as (screen, pilot):
        await until(pilot, lambda: screen.session.info, "the model")
        screen.source.text = "\n".join(["A man in a blue shirt."] * 40)
        pilot.app.post_message(Key("enter", "\r"))
        while not (screen.exchange and screen.exchange.n_tokens > 40):
            await asyncio.sleep(0.001)  # the pilot itself waits until nothing happens any more
        pilot.app.post_message(Key("escape", None))
        await until(pilot, lambda: screen.exchange and screen.exchange.ended, "the stop")
        assert screen.exchange is not None and screen.exchange.cancelled
        assert screen.exchange.text.strip() and screen.target.text == screen.exchange.text


async def test_hostile_text_is_shown_and_does_nothing() -> None:
    async with translating(None, (120, 40)) as (screen, pilot):
        app = pilot.app
        assert isinstance(app, TfmApp)
        screen.target.begin(1)
        screen.target.append(0, HOSTILE)
        screen.target.finish_all()
        screen.notify(HOSTILE, markup=False)
        app.session.problem = HOSTILE
        await pilot.pause(0.2)
        await pilot.click("#target", offset=(30, 1))
        await pilot.pause()
        text = painted(app)
        assert "[@click=app.leave]" in text
        assert not set(text) & set("\x1b\x07\x9b\u202e")
        assert app.is_running


async def test_no_engine_is_a_sentence_and_not_the_end() -> None:
    app = TfmApp(["/no-such-engine"])
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "no-such-engine" in painted(app), "the sentence")
        screen = app.screen
        assert isinstance(screen, TranslateScreen)
        screen.source.text = "A man."
        await pilot.press("enter")
        await until(pilot, lambda: screen.exchange and screen.exchange.ended, "the answer")
        assert screen.source.text == "A man."  # nothing lost


async def test_a_paste_that_is_too_long_is_refused() -> None:
    from textual.events import Paste

    async with translating(None) as (screen, pilot):
        await pilot.pause()
        pilot.app.post_message(Paste("x" * 100_000))
        await pilot.pause(0.2)
        assert screen.source.text == ""
        pilot.app.post_message(Paste("a\x1b[31m\r\nb"))
        await pilot.pause(0.2)
        assert screen.source.text == "a␛[31m\nb"


async def test_help_and_palette_hold_every_binding() -> None:
    async with translating(None, (100, 200)) as (screen, pilot):
        app = pilot.app
        assert isinstance(app, TfmApp)
        places = (keymap.APP, SourceInput.BINDINGS, TokenStream.BINDINGS, TranslateScreen.BINDINGS)
        wanted = {binding.id for place in places for binding in place if isinstance(binding, Binding)}
        assert {b.id for _, b in app.live_bindings(screen)} == wanted
        commands = " ".join(command.help for command in app.get_system_commands(screen))
        assert all(str(i) in commands for i in wanted - {"app.palette"})
        await pilot.press("f9")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen), "help")
        await until(pilot, lambda: keymap.APP[-1].tooltip in painted(app), "its last line")
        text = painted(app)
        for _, binding in app.live_bindings(screen):
            assert binding.tooltip in text
        await pilot.press("escape", "f5")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen), "the train mode")
        assert {b.id for _, b in app.live_bindings(app.screen)} == {
            b.id for b in (*keymap.APP, *keymap.TRAIN, *keymap.RUNS, *keymap.RUN, *keymap.STEER)
        }


async def test_no_key_is_bound_twice_in_one_place() -> None:
    for place in (
        TfmApp,
        SourceInput,
        TokenStream,
        TranslateScreen,
        TrainScreen,
        RunsRoom,
        WatchRoom,
        StagesScreen,
        TokenBiases,
        PresetList,
    ):
        group = [binding for binding in place.BINDINGS if isinstance(binding, Binding)]
        keys = [key.strip() for binding in group for key in binding.key.split(",")]
        assert len(keys) == len(set(keys))
        assert all(binding.id and binding.tooltip for binding in group)


async def test_tiny_terminals_do_not_break_it(tiny_translator: Path) -> None:
    async with translating(tiny_translator) as (screen, pilot):
        await translate(screen, pilot, "A man.")
        for size in ((1, 1), (2, 40), (40, 2), (20, 5), (300, 100), (80, 24)):
            await pilot.resize_terminal(*size)
            await pilot.pause(0.05)
        assert pilot.app.screen.query_one(KeyLine).rows
        assert all(isinstance(line.rows, tuple) for line in screen.query(Lines))
