"""Every binding of every mode is in the help and in the palette, and the palette carries it out."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.app import SystemCommand
from textual.binding import Binding
from textual.dom import DOMNode
from textual.pilot import Pilot
from textual.screen import Screen

from tfm.tui import keymap, screens, widgets
from tfm.tui.app import TfmApp
from tfm.tui.screens.base import ModeScreen
from tfm.tui.screens.help import HelpScreen, KeyList

from .driving import NO_ENGINE, painted, until

PLACES = {place.title: place for place in keymap.PLACES}
OVERLAYS = {  # place: the mode, and the keys that open it there
    "the list of stages": ("translate", ["tab", "o"]),
    "the list of biases": ("translate", ["tab", "o", "home", "right", "escape"]),  # empty, so it asks first
    "the list of presets": ("translate", ["tab", "O"]),
    "the list of sessions": ("translate", ["tab", "c"]),
}


def ids_of(place: keymap.Place) -> set[str]:
    return {b.id for group in (place.screen, *place.widgets) for b in group if b.id}


def classes_with_keys() -> Iterator[type[DOMNode]]:
    for package in (screens, widgets):
        for module in pkgutil.iter_modules(package.__path__):
            for value in vars(importlib.import_module(f"{package.__name__}.{module.name}")).values():
                if isinstance(value, type) and issubclass(value, DOMNode) and "BINDINGS" in vars(value):
                    yield value


def test_no_binding_is_outside_of_the_places_that_help_and_conflicts_know() -> None:
    found: set[str] = set()
    for kind in classes_with_keys():
        if not kind.__module__.startswith("tfm."):
            continue
        for binding in kind.BINDINGS:
            assert isinstance(binding, Binding)
            if binding.id is not None:
                assert keymap.ALL.get(binding.id) == binding, f"{kind.__name__}: {binding.id} is in no place"
                assert binding.tooltip, binding.id
                found.add(binding.id)
    assert found | {binding.id for binding in keymap.APP} == set(keymap.ALL)
    assert {mode.name for mode in keymap.MODES} | set(OVERLAYS) == set(PLACES)


async def open_place(app: TfmApp, pilot: Pilot[int], title: str) -> Screen[object]:
    mode, keys = OVERLAYS.get(title, (title, []))
    await until(pilot, lambda: isinstance(app.screen, ModeScreen), "the app")
    await pilot.press(next(m.key for m in keymap.MODES if m.name == mode))
    await until(pilot, lambda: getattr(app.screen, "MODE", "") == mode, mode)
    await pilot.press(*keys)
    if keys:
        await until(pilot, lambda: app.screen.is_modal, title)
    return app.screen


@pytest.mark.parametrize("title", list(PLACES))
async def test_each_binding_is_in_help_and_palette_and_the_palette_carries_it_out(
    title: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = TfmApp(NO_ENGINE)
    async with app.run_test(size=(120, 300)) as pilot:
        screen = await open_place(app, pilot, title)
        wanted = ids_of(PLACES[title]) | {str(binding.id) for binding in keymap.APP}
        live = {binding.id: (node, binding) for node, binding in app.live_bindings(screen)}
        assert set(live) == wanted

        commands: dict[str, SystemCommand] = {}
        for command in app.get_system_commands(screen):
            commands[command.help.split()[-1] if command.help else command.title] = command
        for id, (node, binding) in live.items():
            if id == "app.palette":
                continue  # the palette itself
            assert id is not None and commands[id].title == binding.tooltip
            assert keymap.key_names(binding) in commands[id].help
            # run it with the action's own method replaced by one that notes that it was called
            name = binding.action.partition("(")[0]
            called: list[tuple[object, ...]] = []
            with monkeypatch.context() as patched:
                patched.setattr(node, f"action_{name}", lambda *given, into=called: into.append(given))
                patched.setattr(type(node), "check_action", lambda *_: True)
                await commands[id].callback()
            assert len(called) == 1, f"the palette does not carry out {id}"

        await pilot.press("f9")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen), "help")
        await until(pilot, lambda: "Leave, from anywhere" in painted(app), "its last line")  # as painted
        rows = app.screen.query_one(KeyList).rows
        text = " ".join(span[0].strip() for row in rows for span in row if span[1] == "")
        keys = " ".join(span[0] for row in rows for span in row if span[1] == "key")
        assert "…" not in text + keys  # nothing is cut
        for id in wanted:
            binding = keymap.ALL[id]
            assert binding.tooltip in text, f"{id} is not in the help of {title}"
            assert keymap.key_names(binding) in keys


async def test_a_command_is_found_by_typing_and_acts(tmp_path: Path) -> None:
    app = TfmApp(NO_ENGINE)
    async with app.run_test(size=(100, 30)) as pilot:
        await open_place(app, pilot, "fill")
        await pilot.press("ctrl+p", *"go to lab")
        await until(pilot, lambda: "mode.lab" in painted(app), "the command")
        await pilot.press("enter")
        await until(pilot, lambda: app.current_mode == "lab", "the lab")
