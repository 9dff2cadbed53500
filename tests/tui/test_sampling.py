"""Sampling through the app: knobs that act while it writes, the chain's order, presets, biases."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from textual.pilot import Pilot

from tfm.core.checkpoint import load_checkpoint
from tfm.core.engine.protocol import Lane
from tfm.core.generate import LaneFinished, generate
from tfm.core.sampling.settings import NEUTRAL, PRESETS, TRANSFORMERS_ORDER, SamplingSettings
from tfm.tui import replies
from tfm.tui.presets import PresetFolder
from tfm.tui.screens.chat import ChatScreen
from tfm.tui.screens.fill import FillScreen
from tfm.tui.screens.preset_list import PresetList
from tfm.tui.screens.prompt import Choice, Prompt
from tfm.tui.screens.stages import StagesScreen
from tfm.tui.screens.token_biases import TokenBiases
from tfm.tui.screens.translate import TranslateScreen
from tfm.tui.widgets.painted import MARK

from .driving import driven, painted, press_now, until
from .terminal import Terminal

SOURCE = "A man in a blue shirt is standing on a ladder."


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TFM_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def drawn(
    model: Path, settings: SamplingSettings, seed: int, prefix: tuple[int, ...] = ()
) -> tuple[int, ...]:
    """What the engine makes of it, computed here."""
    lane = Lane(prompt=SOURCE, settings=settings, seed=seed, prefix=prefix)
    longest = 128 - len(prefix)
    ends = [
        r for r in generate(load_checkpoint(model), [lane], max_tokens=longest) if isinstance(r, LaneFinished)
    ]
    return ends[0].tokens


def tokens(screen: TranslateScreen) -> tuple[int, ...]:
    assert screen.exchange is not None
    return tuple(token.token for token in screen.exchange.tokens[0])


async def translate(
    screen: TranslateScreen, pilot: Pilot[int], settings: SamplingSettings
) -> tuple[int, ...]:
    before = screen.exchange
    screen._set(settings)
    screen.source.text = SOURCE
    screen.source.focus()
    await pilot.press("enter")
    await until(
        pilot, lambda: screen.exchange is not before and screen.exchange and screen.exchange.ended, "the text"
    )
    return tokens(screen)


async def opened(pilot: Pilot[int], key: str, kind: type) -> None:
    await pilot.press(key)
    await until(pilot, lambda: isinstance(pilot.app.screen, kind), kind.__name__)


HOT = NEUTRAL.replace(temperature=1.5, top_k=50, banned=(2,))  # never the end: it writes as long as it may


async def test_a_knob_turned_in_mid_stream_acts_at_the_next_token_and_leaves_its_mark(
    tiny_translator: Path,
) -> None:
    async with driven(TranslateScreen, tiny_translator) as (screen, pilot):
        await until(pilot, lambda: screen.session.info, "the model")
        screen._set(HOT)
        screen.source.text = SOURCE
        press_now(pilot, "enter", "tab")
        await until(pilot, lambda: screen.exchange and screen.exchange.n_tokens > 8, "tokens")
        screen.target.focus()
        press_now(pilot, "K")  # 50 becomes 80
        await until(pilot, lambda: screen.exchange and screen.exchange.turned, "the mark")
        press_now(pilot, "t")
        await until(pilot, lambda: screen.exchange and screen.exchange.ended, "the end")
        assert screen.exchange is not None
        line = screen.exchange.tokens[0]
        at = [n for n, token in enumerate(line) if token.settings_mark]
        assert len(at) == 2 and 8 <= at[0] < at[1], "the machine was faster than the keys"

        # before each mark it is what the old settings make, from there on what the new ones make
        now, made = HOT, tokens(screen)
        for start, end in zip([0, *at], [*at, len(made)], strict=True):
            now = line[start].settings or now
            assert drawn(tiny_translator, now, 1, made[:start])[:end] == made[:end]
        assert (now.top_k, now.temperature) == (80, pytest.approx(1.45))

        await pilot.pause(0.1)
        assert painted(pilot.app).count(MARK) >= 1
        told = {at[0]: "top-k 50 → 80 from here", at[1]: "temperature 1.50 → 1.45 from here"}
        for number, sentence in told.items():
            screen.target.select(0, number)
            await until(pilot, lambda said=sentence: f"{MARK} {said}" in painted(pilot.app), sentence)
        screen.target.select(0, 0)
        await until(pilot, lambda: "from here" not in painted(pilot.app), "no word of it elsewhere")


async def test_the_order_of_the_stages_is_the_one_that_the_engine_runs(tiny_translator: Path) -> None:
    first = NEUTRAL.replace(temperature=3.0, top_p=0.5)
    async with driven(TranslateScreen, tiny_translator) as (screen, pilot):
        await until(pilot, lambda: screen.session.info, "the model")
        one = await translate(screen, pilot, first)
        assert one == drawn(tiny_translator, first, 1)
        await pilot.press("tab")
        await opened(pilot, "o", StagesScreen)
        assert "order llama.cpp" in painted(pilot.app) and "15 of 16 here" in painted(pilot.app)
        await pilot.press(*["less_than_sign"] * 6)  # temperature in front of top-p
        moved = screen.panel.decoding.settings
        assert moved.order.index("temperature") == moved.order.index("top_p") - 1 == 8
        assert "order own" in painted(pilot.app)
        await pilot.press("escape")
        other = await translate(screen, pilot, moved)
        assert other == drawn(tiny_translator, moved, 1) and other != one

        await pilot.press("tab")
        await opened(pilot, "o", StagesScreen)
        await pilot.press("c", "c")
        assert screen.panel.decoding.settings == first.replace(order=TRANSFORMERS_ORDER)
        await pilot.press("space")  # without its temperature
        without = screen.panel.decoding.settings
        assert without.temperature == 3.0 and "temperature" not in without.order
        assert "left out" in painted(pilot.app)
        await pilot.press("escape")
        assert await translate(screen, pilot, without) == drawn(
            tiny_translator, without.replace(temperature=1), 1
        )


async def test_the_list_turns_types_finds_and_takes_back() -> None:
    async with driven(TranslateScreen, None) as (screen, pilot):
        await pilot.press("tab")
        await opened(pilot, "o", StagesScreen)
        await pilot.press("right", "v")
        assert screen.panel.decoding.settings.temperature == pytest.approx(0.05)
        text = painted(pilot.app)
        assert "greedy, 1 changed" in text and "what is on: 1 of 25" in text
        await pilot.press("v")
        assert "what changed: 1 of 25" in painted(pilot.app) and "0.00 in greedy" in painted(pilot.app)
        await pilot.press("u", "v")
        assert screen.panel.decoding.settings == PRESETS["greedy"]
        await pilot.press("slash", *"xtc thr", "enter")
        assert "1 of 25" in painted(pilot.app)
        await opened(pilot, "enter", Prompt)
        await pilot.press(*"7", "enter")
        assert "must lie in [0, 1]" in painted(pilot.app).replace("\n", " ")
        await pilot.press(*["backspace"] * 2, *"0.123", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, StagesScreen), "the list")
        assert screen.panel.decoding.settings.xtc_threshold == 0.123
        await pilot.press("0", "escape")
        assert screen.panel.decoding.settings == PRESETS["greedy"] and "25 of 25" in painted(pilot.app)
        await pilot.press("slash", *"breakers", "enter")
        await opened(pilot, "enter", Prompt)
        await pilot.press(*r"\n\n ;", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, StagesScreen), "the list")
        assert screen.panel.decoding.settings.dry_breakers == ("\n\n", ";")
        await pilot.press("escape", "N", "escape")
        await until(pilot, lambda: pilot.app.screen is screen, "the list to close")
        assert screen.panel.decoding.settings == NEUTRAL
        await opened(pilot, "equals_sign", Prompt)
        await pilot.press(*"temp 0.85 top-k 40", "enter")
        await until(pilot, lambda: pilot.app.screen is screen, "the dialog to close")
        assert screen.panel.decoding.settings == NEUTRAL.replace(temperature=0.85, top_k=40)


async def test_a_preset_of_ones_own_is_there_for_another_process(tiny_translator: Path, home: Path) -> None:
    mine = NEUTRAL.replace(temperature=0.85, top_k=40)
    async with driven(TranslateScreen, None) as (screen, pilot):
        screen._set(mine)
        await pilot.press("tab")
        await opened(pilot, "O", PresetList)
        await opened(pilot, "w", Prompt)
        await pilot.press(*"my prose", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, PresetList), "the list")
        await until(pilot, lambda: "my prose" in painted(pilot.app), "its name")
        await pilot.press("escape", "T")
        assert "my prose *1" in painted(pilot.app)
        await opened(pilot, "O", PresetList)  # again, over the one that is there: it asks
        await opened(pilot, "w", Prompt)
        await pilot.press(*"my prose", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, Choice), "the question")
        await pilot.press("down", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, PresetList), "the list")
    mine = mine.replace(temperature=0.9)
    assert PresetFolder().get("my prose") == mine

    no_engine = "from tfm.tui.app import TfmApp; TfmApp(['/no-such-engine']).run()"
    with Terminal([sys.executable, "-c", no_engine], environment={"TFM_HOME": str(home)}) as terminal:
        terminal.wait_for("Cannot start")
        terminal.press("tab")
        terminal.wait_for("i edit")
        terminal.press("O")
        terminal.wait_for("my prose")
        terminal.press("k", "enter")  # one's own come last, and the list goes round
        terminal.wait_for("0.90")
    command = [sys.executable, "-m", "tfm.tui.cli", "translate", SOURCE, "-m", str(tiny_translator)]
    result = subprocess.run([*command, "--preset", "my prose", "--seed", "3", "--json"], capture_output=True)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["settings"] == {"temperature": 0.9, "top_k": 40}

    async with driven(TranslateScreen, None) as (screen, pilot):
        await until(pilot, lambda: screen.panel.presets.own, "the presets")
        await pilot.press("tab")
        await opened(pilot, "O", PresetList)
        await pilot.press(*["down"] * len(PRESETS))
        await opened(pilot, "r", Prompt)
        await pilot.press(*["backspace"] * 10, *"prose", "enter")
        await until(pilot, lambda: "prose" in PresetFolder().read().own, "the new name")
        await until(pilot, lambda: isinstance(pilot.app.screen, PresetList), "the list")
        await until(pilot, lambda: screen.panel.presets.own.keys() == {"prose"}, "the panel to know")
        await opened(pilot, "x", Choice)
        await pilot.press("down", "enter")
        await until(pilot, lambda: not PresetFolder().read().own, "its end")


async def test_tokens_are_biased_and_banned_by_their_text(tiny_translator: Path) -> None:
    tokenizer = load_checkpoint(tiny_translator).tokenizer
    async with driven(TranslateScreen, tiny_translator) as (screen, pilot):
        await until(pilot, lambda: screen.session.info, "the model")
        first = await translate(screen, pilot, PRESETS["greedy"])
        piece = tokenizer.piece(first[0])
        assert tokenizer.encode(piece.strip()) == [first[0]] or piece.strip()
        await pilot.press("tab")
        await opened(pilot, "o", StagesScreen)
        await pilot.press("home", "right")  # the list of biases; it is empty, so it asks
        await until(pilot, lambda: isinstance(pilot.app.screen, Prompt), "the question")
        await pilot.press(*f"#{first[0]}", "enter")
        await until(pilot, lambda: screen.panel.decoding.settings.logit_bias, "the bias")
        assert screen.panel.decoding.settings.logit_bias == {first[0]: 2.0}
        await until(pilot, lambda: f"#{first[0]}" in painted(pilot.app), "its line")
        await pilot.press("right", "b")
        assert screen.panel.decoding.settings.banned == (first[0],)

        await opened(pilot, "a", Prompt)
        await pilot.press(*"Leiter", "enter")
        await until(pilot, lambda: not isinstance(pilot.app.screen, Prompt), "an answer")
        ids = tokenizer.encode("Leiter")
        if isinstance(pilot.app.screen, Choice):  # it is several tokens: all of them
            await pilot.press("end", "enter")
        await until(pilot, lambda: screen.panel.decoding.settings.logit_bias.keys() == {*ids}, "all of them")
        await pilot.press("x")
        assert len(screen.panel.decoding.settings.logit_bias) == len({*ids}) - 1
        await opened(pilot, "a", Prompt)
        await pilot.press(*"#99999", "enter")
        await until(pilot, lambda: "no token 99999" in painted(pilot.app).replace("\n", " "), "the refusal")
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, TokenBiases)
        await pilot.press("escape", "escape")
        settings = PRESETS["greedy"].replace(banned=(first[0],))
        assert first[0] not in await translate(screen, pilot, settings)


async def test_marks_are_kept_with_the_conversation_and_told_in_its_exports(
    tiny_chatter: Path, home: Path
) -> None:
    async with driven(ChatScreen, tiny_chatter) as (screen, pilot):
        await until(pilot, lambda: screen.session.info, "the model")
        screen._set(HOT.replace(temperature=0.7))
        screen.message.text = "A boy."
        screen.talk.max_tokens = 90
        press_now(pilot, "enter")
        await until(pilot, lambda: screen.writing and screen.writing.n_new > 8, "tokens")
        screen.transcript.focus()
        press_now(pilot, "T", "T")
        await until(pilot, lambda: not screen.running, "the end")
        turn = screen.talk.turns[screen.path[1]]
        heard = screen.heard[screen.path[1]]
        assert turn.marks and turn.settings.temperature == 0.7, "the machine was faster than the keys"
        assert turn.settings_now.temperature == pytest.approx(0.8)
        first = turn.marks[0]
        assert heard[first.at].settings == first.settings
        assert turn.text[: first.char] == "".join(token.piece for token in heard[: first.at])
        screen.transcript.choose(1, first.at)
        await until(pilot, lambda: "temperature 0.70 → 0." in painted(pilot.app), "what it says")
        await until(pilot, lambda: MARK in painted(pilot.app), "the mark")

        screen.transcript.choose(1, 3)  # a rival in the place of the fourth token
        await pilot.press("2")
        await until(pilot, lambda: screen.path[1] != 1 and not screen.running, "another version")
        other = screen.talk.turns[screen.path[1]]
        assert [(mark.at, mark.by_hand) for mark in other.marks] == [(3, True)]
        assert other.settings == turn.settings and other.settings_now.temperature == pytest.approx(0.8)
        screen.transcript.choose(1, *replies.marked(other, screen.heard[screen.path[1]]))
        await until(pilot, lambda: "taken by hand · temperature" in painted(pilot.app), "what it says")
        await pilot.press("comma")

        screen.talk.max_tokens = 4  # other settings from where it was cut: a mark there, too
        screen._set(HOT.replace(temperature=0.1))
        await pilot.press("ctrl+e")
        await until(pilot, lambda: not screen.running and len(turn.tokens) == 94, "more of it")
        assert (turn.marks[-1].at, turn.settings_now.temperature) == (90, pytest.approx(0.1))
        n_marks = len(turn.marks)

        await opened(pilot, "ctrl+s", Prompt)
        await pilot.press("enter")
        await until(pilot, lambda: list(home.glob("chat-*.json")), "the export")
        markdown = next(home.glob("chat-*.md")).read_text()
        assert "temperature 0.70 → 0." in markdown and f"token {first.at + 1}" in markdown
        whole = json.loads(next(home.glob("chat-*.json")).read_text())
        told = whole["conversation"]["turns"][1]["marks"]
        assert len(told) == n_marks and told[0]["at"] == first.at

    async with driven(ChatScreen, None) as (screen, pilot):  # as it was left, without any engine
        again = screen.talk.turns[screen.path[1]]
        assert again.marks == turn.marks and again.settings_now.temperature == pytest.approx(0.1)
        await until(pilot, lambda: MARK in painted(pilot.app), "the mark")
        await pilot.press("tab", "end")
        await until(pilot, lambda: "→ 0.10 from here" in painted(pilot.app), "what the last mark says")
        await pilot.press("home")
        await until(pilot, lambda: "temperature 0.70 → 0." in painted(pilot.app), "what the first one says")


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_the_panel_shows_as_much_as_there_is_room_for(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with driven(TranslateScreen, None, size) as (screen, pilot):
        screen._set(PRESETS["llama.cpp"].replace(xtc_chance=0.5, mirostat_tau=5.0, order=TRANSFORMERS_ORDER))
        await pilot.pause(0.1)
        text = painted(pilot.app)
        assert "order transformers" in text and "top-k" in text
        if size[0] < 120:
            assert "2 more on: xtc, mirostat" in text
        else:
            assert all(part in text for part in (" 7 temperature", "0.50, threshold 0.10", "mirostat is on"))
        await pilot.press("tab")
        await opened(pilot, "o", StagesScreen)
        await pilot.pause(0.1)
        text = painted(pilot.app)
        assert "▸  7 temperature" in text and "z/T; T = 0 keeps the likeliest alone" in text
        assert "7 of 16 here · 15 in llama.cpp, 7 in transformers" in text and "< > move" in text
        assert all(line in text for line in ("xtc", "mirostat is on")) or size[1] < 30
        for place in ("end", "home", "pagedown"):
            await pilot.press(place)
            assert "▸" in painted(pilot.app)


@pytest.mark.parametrize("kind", [ChatScreen, FillScreen])
async def test_every_mode_that_samples_has_the_list(kind: type[ChatScreen] | type[FillScreen]) -> None:
    async with driven(kind, None) as (screen, pilot):
        await pilot.press("tab")
        await opened(pilot, "o", StagesScreen)
        await pilot.press("N", "escape")
        assert screen.panel.decoding.settings == NEUTRAL
