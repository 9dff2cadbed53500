"""What a conversation is held under: system prompt, stop strings, how long a reply may be."""

from __future__ import annotations

import re
from typing import ClassVar, NamedTuple

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Input

from tfm.tui.safe_text import plain
from tfm.tui.screens.overlay import Overlay
from tfm.tui.widgets.lines import Lines
from tfm.tui.widgets.message_input import MessageInput

SEPARATOR = "|"
_ESCAPE = re.compile(r"\\([n\\])")
MOST_TOKENS = 100_000


class Setup(NamedTuple):
    system: str = ""
    stop: tuple[str, ...] = ()
    max_tokens: int = 512


class SetupScreen(Overlay[Setup | None]):
    """Three fields; Enter accepts all of them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "back"),
        Binding("tab", "app.focus_next", "next", priority=True),
        Binding("shift+tab", "app.focus_previous", "previous", priority=True),
    ]
    AUTO_FOCUS = "MessageInput"

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self._setup = setup

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog", can_focus=False) as dialog:
            dialog.border_title = plain("This chat")
            dialog.border_subtitle = plain(
                self.told("{message.send} accept · Tab next · {message.newline} new line · Esc back")
            )
            yield Lines(id="about-system")
            yield MessageInput(
                self._setup.system, soft_wrap=True, compact=True, show_line_numbers=False, id="system"
            )
            yield Lines(id="about-stop")
            yield Input(_written(self._setup.stop), placeholder="none", id="stop")
            yield Lines(id="about-length")
            yield Input(str(self._setup.max_tokens), id="length", type="integer")
            yield Lines(id="answer")

    def on_mount(self) -> None:
        system = self.query_one(MessageInput)
        system.cursor_blink = False
        system.move_cursor(system.document.end)
        self._head("about-system", "System prompt", "what the model is told before the first turn")
        self._head("about-stop", "Stop strings", f"end a reply; {SEPARATOR} between them, \\n is a new line")
        longest = self.told("in tokens; {chat.continue} goes on with one that was cut")
        self._head("about-length", "Longest reply", longest)

    def _head(self, id: str, title: str, about: str) -> None:
        self.query_one(f"#{id}", Lines).show([((title, "strong"), (f"  {about}", "dim"))])

    @on(Input.Submitted)
    @on(MessageInput.Submitted)
    def _accept(self) -> None:
        try:
            self.dismiss(
                Setup(
                    system=self.query_one("#system", MessageInput).text.strip(),
                    stop=_read_stops(self.query_one("#stop", Input).value),
                    max_tokens=_read_length(self.query_one("#length", Input).value),
                )
            )
        except ValueError as error:
            self.query_one("#answer", Lines).show([((str(error), "bad"),)])

    def action_back(self) -> None:
        self.dismiss(None)


def _written(stop: tuple[str, ...]) -> str:
    return f" {SEPARATOR} ".join(text.replace("\\", "\\\\").replace("\n", "\\n") for text in stop)


def _read_stops(text: str) -> tuple[str, ...]:
    """Strings between bars, without the spaces around them."""
    parts = [part.strip() for part in text.split(SEPARATOR)]
    return tuple(_ESCAPE.sub(lambda m: "\n" if m[1] == "n" else "\\", part) for part in parts if part)


def _read_length(text: str) -> int:
    """Raises ValueError with a sentence."""
    if not text.strip().isdigit() or not 1 <= int(text) <= MOST_TOKENS:
        raise ValueError(f"The longest reply is a whole number of tokens from 1 to {MOST_TOKENS:,}.")
    return int(text)
