"""Typing faster than the app reads: keys act in the order in which they were pressed."""

from __future__ import annotations

from textual import events
from textual.app import App, ComposeResult

from tfm.tui.widgets.source_input import SourceInput


class Editor(App[None]):
    def __init__(self) -> None:
        super().__init__()
        self.submitted: list[str] = []

    def compose(self) -> ComposeResult:
        yield SourceInput()

    def on_source_input_submitted(self, message: SourceInput.Submitted) -> None:
        self.submitted.append(message.text)


def keys(text: str) -> list[events.Key]:
    names = {"\n": "ctrl+j", "\r": "enter", " ": "space", "\x7f": "backspace", "\x01": "ctrl+a"}
    return [events.Key(names.get(char, char), char) for char in text]


async def test_a_burst_keeps_its_order() -> None:
    app = Editor()
    text = "a man walks\na dog runs\n" * 20
    async with app.run_test() as pilot:
        for key in keys(text + "\r"):
            app.post_message(key)  # all of them are there before the first is handled
        await pilot.pause()
        await pilot.pause()
        assert app.query_one(SourceInput).text == text
        assert app.submitted == [text]


async def test_editing_keys_are_not_overtaken_by_what_is_typed_after_them() -> None:
    app = Editor()
    burst = keys("the man" + "\x7f" * 3 + "cat\x01so ")
    async with app.run_test() as pilot:
        for key in burst:
            app.post_message(key)
        await pilot.pause()
        await pilot.pause()
        assert app.query_one(SourceInput).text == "so the cat"
