"""Every key that the README names, pressed on the real app with a real engine: it does what the README says.

A row of the table belongs to one test here; each test presses exactly the keys of its rows (the panel of a
running trainer and the list of models have theirs, where the same keys are pressed).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from textual.command import CommandPalette
from textual.pilot import Pilot
from textual.screen import Screen

from tfm.tui.app import TfmApp
from tfm.tui.keys_file import normal_key
from tfm.tui.screens.chat import ChatScreen
from tfm.tui.screens.chat_setup import SetupScreen
from tfm.tui.screens.fill import FillScreen
from tfm.tui.screens.help import HelpScreen
from tfm.tui.screens.lab import LabScreen
from tfm.tui.screens.preset_list import PresetList
from tfm.tui.screens.prompt import Choice, Prompt
from tfm.tui.screens.sessions import SessionsScreen
from tfm.tui.screens.stages import StagesScreen
from tfm.tui.screens.translate import TranslateScreen

from .driving import driven, painted, press_now, until

ROOT = Path(__file__).parents[2]
ELSEWHERE = {
    "train": "test_train_screen.py",
    "models": "test_models_screen.py",
    "translate: go on": "test_sampling.py",
}  # by how the row begins


def rows() -> list[tuple[str, list[str]]]:
    """What each row of the README's table says, and its keys as the app names them."""
    table = (ROOT / "README.md").read_text("utf-8").split("\n## Keys\n")[1].split("\n\nSingle letters")[0]
    found = []
    for line in table.splitlines():
        cells = re.fullmatch(r"\| (`.*`.*?) \| (.+) \|", line)
        if cells is None:
            continue
        keys: list[str] = []
        for one, until_key in re.findall(r"`([^`]+)`(?: \.\.\. `([^`]+)`)?", cells[1]):
            last = until_key or one
            stem = one.rstrip("0123456789")
            numbers = range(int(one[len(stem) :]), int(last[len(stem) :]) + 1) if until_key else ()
            for text in [f"{stem}{n}" for n in numbers] or [one]:
                key = normal_key(text)
                assert key is not None, text
                keys.append(key)
        found.append((cells[2], keys))
    return found


class Hands:
    """Presses keys and remembers which."""

    def __init__(self, pilot: Pilot[int]) -> None:
        self.pilot = pilot
        self.pressed: set[str] = set()

    async def press(self, *keys: str) -> None:
        self.pressed.update(normal_key(key) or key for key in keys)
        await self.pilot.press(*keys)

    async def reach(self, kind: type[Screen[object]], *keys: str) -> Screen[object]:
        """Press keys that lead to such a screen."""
        await self.press(*keys)
        await until(self.pilot, lambda: isinstance(self.pilot.app.screen, kind), kind.__name__)
        return self.pilot.app.screen

    def did(self, *beginnings: str) -> None:
        """All keys of the rows that begin so were pressed, and there are such rows."""
        for beginning in beginnings:
            mine = [keys for text, keys in rows() if text.startswith(beginning)]
            assert len(mine) == 1, beginning
            assert set(mine[0]) <= self.pressed, (beginning, set(mine[0]) - self.pressed)


OWN = (  # how the rows begin that are pressed here
    "translate, chat, fill", "send; a new line", "stop and keep", "again", "between the input",
    "temperature, top-p", "preset, another seed", "colour the text",
    "beam search or sampling", "a new session",
    "export (Markdown", "find in the session", "another model", "all keys, all commands", "leave; a training",
    "chat: go on with", "chat: system prompt", "lab: the next token",
)  # fmt: skip


def test_every_row_of_the_readme_has_its_test() -> None:
    for text, keys in rows():
        beginnings = [b for b in (*OWN, *ELSEWHERE) if text.startswith(b)]
        assert len(beginnings) == 1, f"{text!r} has {len(beginnings)} tests"
        if beginnings[0] in ELSEWHERE:
            source = (Path(__file__).parent / ELSEWHERE[beginnings[0]]).read_text("utf-8")
            pressed = " ".join(re.findall(r"press(?:_now)?\((.*?)\)", source, re.DOTALL))
            missing = [key for key in keys if f'"{key}"' not in pressed]
            assert not missing, f"{text!r}: {missing} are not pressed in {ELSEWHERE[beginnings[0]]}"


async def test_translate_and_what_works_everywhere(
    tiny_translator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with driven(TranslateScreen, tiny_translator, (100, 30)) as (screen, pilot):
        app, hands = pilot.app, Hands(pilot)
        assert isinstance(app, TfmApp)

        def ended() -> bool:
            return screen.exchange is not None and screen.exchange.ended

        # send; a new line
        await until(pilot, lambda: screen.session.info, "the model")
        await hands.press(*"A man", "ctrl+j", *"A dog")
        assert screen.source.text == "A man\nA dog"
        await hands.press("enter")
        await until(pilot, ended, "the translation")
        first = screen.exchange
        assert first is not None and len(first.lines) == 2 and first.text.strip()
        # between the input and the tokens; knobs
        await hands.press("tab")
        assert screen.target.has_focus and screen.target.selected is not None
        for low, high, field in (
            ("t", "T", "temperature"), ("p", "P", "top_p"), ("k", "K", "top_k"), ("m", "M", "min_p"),
            ("r", "R", "repetition"),
        ):  # fmt: skip
            up, down = (low, high) if field == "top_p" else (high, low)  # top-p begins at its upper end
            before = getattr(screen.panel.decoding.settings, field)
            await hands.press(up)
            there = getattr(screen.panel.decoding.settings, field)
            assert there != before and (there > before) == (up == high), field
            await hands.press(down)
            assert getattr(screen.panel.decoding.settings, field) == before, field
        # preset, another seed, all stages
        settings, seed = screen.panel.decoding.settings, screen.panel.decoding.seed
        await hands.press("]")
        assert screen.panel.decoding.settings != settings
        await hands.press("[")
        assert screen.panel.decoding.settings == settings
        while screen.panel.decoding.seed == seed:
            await hands.press("s")
        await hands.reach(StagesScreen, "o")
        await hands.press("escape")
        await hands.reach(PresetList, "O")
        await hands.press("escape")
        await until(pilot, lambda: app.screen is screen, "the screen")
        await hands.reach(Prompt, "=")
        await pilot.press(*"top-k 40", "enter")
        await until(pilot, lambda: screen.panel.decoding.settings.top_k == 40, "what was typed")
        confidence = app.settings.confidence
        await hands.press("v")
        assert app.settings.confidence is not confidence
        # beam search or sampling, again
        await hands.press("d")
        assert screen.panel.decoding.method == "beam"
        await hands.press("ctrl+r")
        await until(pilot, lambda: screen.exchange is not first and ended(), "the beam")
        await hands.press("d")
        # find, copy, export
        assert screen.exchange is not None
        await hands.reach(Prompt, "/")
        await pilot.press(*"dog", "enter")
        await until(pilot, lambda: app.screen is screen, "the place")
        assert "of 2" in painted(app)  # both translations had it in their source
        await hands.press("n", "N", "y")
        assert app.clipboard == screen.exchange.text
        await hands.press("escape")  # ends the search
        await hands.press("Y")
        assert "A man" in app.clipboard and app.clipboard != screen.exchange.text
        await hands.reach(Prompt, "ctrl+s")
        await pilot.press("enter")
        await until(pilot, lambda: list(tmp_path.rglob("translate-*.md")), "the export")
        await until(pilot, lambda: app.screen is screen, "the screen")
        # stop and keep what is there; else leave the input
        await hands.press("i")
        screen.source.text = "\n".join(["A man in a blue shirt."] * 40)
        press_now(pilot, "enter")
        await until(pilot, lambda: screen.running and screen.exchange and screen.exchange.n_tokens, "tokens")
        press_now(pilot, "escape")
        await until(pilot, ended, "the stop")
        assert screen.exchange.text.strip()
        await hands.press("escape")
        assert not screen.typing
        # sessions, models, help, palette
        await hands.reach(SessionsScreen, "c")
        await hands.press("escape")
        await hands.press("ctrl+n")
        await until(pilot, lambda: screen.exchange is None, "a new session")
        await hands.reach(Choice, "ctrl+o")
        await hands.press("escape")
        await until(pilot, lambda: app.screen is screen, "the screen")
        await hands.reach(HelpScreen, "f9")
        await hands.press("f9", "escape")
        screen.target.focus()
        await hands.reach(HelpScreen, "?")
        await hands.press("escape")
        await hands.reach(CommandPalette, "ctrl+p")
        await hands.press("escape")
        # modes
        names = ("translate", "chat", "fill", "lab", "train", "models")
        for number, name in enumerate(names, 1):
            await hands.press(f"f{number}")
            await until(pilot, lambda name=name: app.current_mode == name, name)
            await until(pilot, lambda name=name: getattr(app.screen, "MODE", "") == name, name)
        # leave
        await hands.press("ctrl+q")
        await until(pilot, lambda: not app.is_running or app._exit, "the end")
        hands.pressed.add("q")  # pressed in the test below
        hands.did(*OWN[: OWN.index("chat: go on with")])


async def test_q_leaves_where_no_text_is_typed(tiny_filler: Path) -> None:
    async with driven(FillScreen, tiny_filler) as (screen, pilot):
        await pilot.press("q")
        assert "q" in screen.source.text and not pilot.app._exit
        await pilot.press("escape", "q")
        await until(pilot, lambda: pilot.app._exit, "the end")


async def test_chat(tiny_chatter: Path) -> None:
    async with driven(ChatScreen, tiny_chatter, (100, 30)) as (screen, pilot):
        hands = Hands(pilot)

        async def reply(*keys: str) -> None:
            before = screen.writing
            await hands.press(*keys)
            await until(pilot, lambda: screen.writing is not before and not screen.running, "the reply")

        await until(pilot, lambda: screen.session.info, "the model")
        await hands.reach(SetupScreen, "ctrl+t")
        await hands.press("escape")
        screen.talk.max_tokens = 12
        screen.message.text = "A man in a boat."
        await reply("enter")
        turn = screen.talk.turns[screen.path[1]]
        length = len(turn.tokens)
        await reply("ctrl+e")
        assert len(turn.tokens) > length
        await hands.press("tab")
        await hands.press("+")
        assert screen.talk.n_replies == 2
        await hands.press("-")
        assert screen.talk.n_replies == 1
        for number in range(1, 10):  # a rival for the third token, whichever of the nine there are
            await hands.press("home", "right", "right")
            before = screen.writing
            await hands.press(str(number))
            if screen.writing is not before:
                await until(pilot, lambda: not screen.running, "the reply")
        n_versions = len(screen.talk.versions(screen.path[1]))
        assert n_versions > 1
        shown = screen.path[1]
        await hands.press(",")
        assert screen.path[1] != shown
        await hands.press(".")
        assert screen.path[1] == shown
        await hands.press("e")
        assert screen.editing is not None
        hands.did("chat: go on with")
    async with driven(FillScreen, None) as (fill, pilot):
        await pilot.press("ctrl+l", *"Two men here", "ctrl+t")
        await until(pilot, lambda: fill.source.text == "Two men [MASK]", "the mask")
        hands.did("chat: system prompt")


async def test_lab(tiny_decoder: Path) -> None:
    async with driven(LabScreen, tiny_decoder, (100, 30)) as (screen, pilot):
        hands = Hands(pilot)
        await until(pilot, lambda: screen.reading, "the example read")
        assert screen.reading is not None and "perplexity" in painted(pilot.app)
        surprises = [n for n, token in enumerate(screen.reading.tokens) if token.rank > 1]
        await hands.press("n")
        assert screen.table.here == next(n for n in surprises if n > 0)
        await hands.press("N")
        assert screen.table.here in (0, surprises[-1])
        await hands.press("y")
        assert pilot.app.clipboard.count("\n") == 1 + len(screen.reading.tokens)
        hands.did("lab: the next token")
