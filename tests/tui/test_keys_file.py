"""Rebinding: keys from a file act, show everywhere, and what is wrong with them costs one sentence."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import tfm.tui
from tfm.tui import keymap
from tfm.tui.app import TfmApp
from tfm.tui.keys_file import _ID_IN_BRACES, Keys, groups, normal_key, read_keys, template
from tfm.tui.screens.fill import FillScreen
from tfm.tui.screens.translate import TranslateScreen

from .driving import NO_ENGINE, driven, painted, until


def read(folder: Path, text: str) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    path = folder / "keys.toml"
    path.write_text(text)
    keys, problems = read_keys(path)
    assert all("\n" not in problem and problem.startswith("keys.toml") for problem in problems)
    return keys.changed, problems


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("k", "k"), ("K", "K"), ("shift+k", "K"), ("?", "question_mark"), (",", "comma"), ("+", "plus"),
        ("Ctrl+K", "ctrl+k"), ("^K", "ctrl+k"), ("ctrl++", "ctrl+plus"), ("F9", "f9"), ("PgUp", "pageup"),
        ("esc", "escape"), ("alt+Enter", "alt+enter"), ("shift+alt+up", "alt+shift+up"), ("é", "é"),
        ("ctrl+i", "tab"), ("ctrl+m", "enter"), (" ", "space"), ("minus", "minus"), ("字", "字"),
        ("", None), ("ctrl+", None), ("ctrl-k", None), ("f25", None), ("ab", None), ("ctrl+ctrl+k", None),
        ("\x1b", None), ("\u202e", None), ("hyperspace+k", None), ("k,j", None),
    ],
)  # fmt: skip
def test_a_key_is_what_people_write(text: str, key: str | None) -> None:
    assert normal_key(text) == key


def test_the_template_names_every_binding_and_changes_nothing(tmp_path: Path) -> None:
    assert tomllib.loads(template()) == {}
    everything = re.sub(r'^# (?=")', "", template(), flags=re.MULTILINE)
    assert set(tomllib.loads(everything)) == set(keymap.ALL)
    changed, problems = read(tmp_path, everything)
    assert not problems
    for id, keys in changed.items():
        own = keymap.ALL[id].key.split(",")
        assert keys == tuple(dict.fromkeys(normal_key(key) for key in own)), id


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('"temprature.raise" = "x"', "did you mean temperature.raise?"),
        ('nonsense = "x"', "there is no binding 'nonsense'"),
        ("app.help = 3", "takes a key or a list of keys"),
        ('app.help = ["x", 3]', "takes a key or a list of keys"),
        ('app.help = "ctrl-x"', "is no key"),
        ('app.help = "\\u001b[2J"', "is no key"),
        ('app.model = "m"', "works while text is typed"),
        ('source.submit = "é"', "works while text is typed"),
        ("app.quit = []", "the way out"),
        ('app.help = "f5"', "'F5' means mode.train in every mode"),
        ('sampling.seed = "t"', "'t' means temperature.lower in translate"),
        ('translate.again = "ctrl+p"', "means app.palette"),
        ('temperature.raise = "h"', "means tokens.previous in translate"),
        ('"temperature.raise" = "x"\n"temperature.lower" = "x"', "temperature.raise in translate, so temp"),
        ("= 3", "is not TOML"),
        ("\xff".encode("latin-1").decode("latin-1") + '"', "is not TOML"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_costs_that_change_alone(
    tmp_path: Path, text: str, said: str
) -> None:
    changed, problems = read(tmp_path, text)
    assert len(problems) == 1 and said in problems[0], problems
    assert len(changed) == ("\n" in text)
    if "TOML" not in said:
        changed, problems = read(tmp_path, '"sampling.stages" = "Z"\n' + text)
        assert changed["sampling.stages"] == ("Z",) and len(problems) == 1


def test_swaps_chains_and_other_places_are_no_conflicts(tmp_path: Path) -> None:
    swap = '"temperature.lower" = "T"\n"temperature.raise" = "t"\n'
    assert read(tmp_path, swap) == ({"temperature.lower": ("T",), "temperature.raise": ("t",)}, [])
    assert not read(tmp_path, '"sampling.seed" = "o"\n"sampling.stages" = "x"\n')[1]
    assert not read(tmp_path, '"train.save" = "t"\n"stages.close" = ["q", "f5"]\n')[1]  # other places
    assert not read(tmp_path, '"translate.edit" = "enter"\n')[1]  # the input's Enter covers it, as before
    assert not read(tmp_path, '"source.submit" = "alt+enter"\n"source.newline" = "enter"\n')[
        1
    ]  # as this does
    # a change that falls takes those along that counted on it
    changed, problems = read(tmp_path, '"sampling.seed" = "o"\n"sampling.stages" = "p"\n')
    assert not changed and len(problems) == 2


def test_keys_as_they_come_have_no_conflict(tmp_path: Path) -> None:
    for place in keymap.PLACES:
        for group in (place.screen, *place.widgets, keymap.APP):
            keys = [key.strip() for binding in group for key in binding.key.split(",")]
            assert len(keys) == len(set(keys)), place.title
    assert {binding.id for _, group in groups() for binding in group} == set(keymap.ALL)


async def test_new_keys_act_also_while_text_is_typed_and_show_everywhere(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text(
        '"temperature.raise" = "alt+up"\n"translate.again" = "f10"\n"app.help_typing" = "f11"\n'
        '"app.palette" = "ctrl+k"\n"mode.fill" = "alt+f"\n"translate.clear" = []\n"oops" = "x"\n'
    )
    async with driven(TranslateScreen, None, (100, 150)) as (screen, pilot):
        app = pilot.app
        assert isinstance(app, TfmApp)
        assert screen.source.has_focus
        await pilot.press("alt+up", "T")
        assert screen.panel.decoding.settings.temperature == pytest.approx(0.05)
        assert screen.source.text == "T"  # the old key is a letter like any other
        await pilot.pause(0.2)
        assert "^K commands" in painted(app) and "F11 help" in painted(app) and "Alt+f Fill" in painted(app)
        assert "^L" not in painted(app).splitlines()[-1]
        await pilot.press("f11")
        await until(pilot, lambda: "Alt+↑" in painted(app), "help")
        await pilot.press("f11")
        await until(pilot, lambda: app.screen is screen, "help to close")
        helps = {command.title: command.help for command in app.get_system_commands(screen)}
        assert helps["Raise the temperature"] == "Alt+↑  temperature.raise"
        assert helps["Empty the input for another text"] == "translate.clear"  # no key, yet in the palette
        await pilot.press("alt+f")
        await until(pilot, lambda: app.current_mode == "fill", "the mode")


async def test_a_bad_file_is_told_of_when_the_app_starts(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text('"tokens.previous" = "[@click=app.leave]x[/]"\n')
    app = TfmApp(NO_ENGINE)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: "is no key" in painted(app), "the sentence", 20)
        assert "[@click=" in painted(app) and app.is_running


async def test_sentences_and_frames_name_the_keys_of_now(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text(
        '"chat.again" = "alt+a"\n"chat.setup" = "alt+s"\n"chat.pull" = "alt+p"\n"fill.mask" = "f10"\n'
    )
    app = TfmApp(NO_ENGINE, mode="chat")
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: "Alt+p fetches SmolLM2" in painted(app), "the new key", 20)
        assert "Alt+a writes another reply" in painted(app) and "Alt+s" in painted(app)
        assert not any(old in painted(app) for old in ("^R", "^T", "^G", "{"))
        await pilot.press("f3")
        await until(pilot, lambda: "F10 mask the word" in painted(app), "the mode", 20)
        assert isinstance(app.screen, FillScreen)
        assert "F10 masks a word" in str(app.screen.source.border_subtitle)
        assert "^T" not in painted(app)


def test_every_id_in_a_sentence_is_that_of_a_binding() -> None:
    keys = Keys({"chat.again": ("f7",), "app.model": ()})
    assert keys.told("{chat.again} or {chat.stop}, {app.model}") == "F7 or Esc, app.model"
    assert keys.told("{no.such} {chat} {} {Chat.again}") == "{no.such} {chat} {} {Chat.again}"
    named = [id for text in _strings_of_the_app() for id in _ID_IN_BRACES.findall(text)]
    assert len(named) >= 60
    assert set(named) <= keymap.ALL.keys()


def _strings_of_the_app() -> Iterator[str]:
    for path in Path(tfm.tui.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


async def test_dialogs_name_the_keys_of_now(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text(
        '"stages.leave_out" = "alt+x"\n"stages.order" = "f11"\n"presets.save" = "f12"\n'
        '"sessions.new" = "alt+n"\n"source.submit" = "alt+enter"\n"source.newline" = "enter"\n'
    )
    app = TfmApp(NO_ENGINE)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: "Alt+Enter translate" in painted(app), "the key line", 20)
        assert "Type a sentence and press Alt+Enter" in painted(app)
        await pilot.press("tab", "o")
        await until(pilot, lambda: "Alt+x leave out" in painted(app), "the list of stages", 20)
        assert "F11 order" in painted(app) and "Space" not in painted(app)
        await pilot.press("escape", "O")
        await until(pilot, lambda: "F12 save as" in painted(app), "the presets", 20)
        await pilot.press("escape", "c")
        await until(pilot, lambda: "Alt+n new" in painted(app), "the sessions", 20)
