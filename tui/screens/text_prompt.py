"""TextPrompt: asks for several lines."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical

from tfm.tui.safe_text import plain
from tfm.tui.screens.overlay import Overlay
from tfm.tui.widgets.lines import Lines
from tfm.tui.widgets.message_input import MessageInput


class TextPrompt(Overlay[str | None]):
    """The text as it was typed, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "back", "back")]
    AUTO_FOCUS = "MessageInput"

    def __init__(self, title: str, text: str, hint: str) -> None:
        super().__init__()
        self._title, self._text, self._hint = title, text, hint

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = plain(self._title)
            dialog.border_subtitle = plain(
                self.told("{message.send} accept · {message.newline} new line · Esc back")
            )
            yield MessageInput(self._text, soft_wrap=True, compact=True, show_line_numbers=False)
            yield Lines(id="hint")

    def on_mount(self) -> None:
        text = self.query_one(MessageInput)
        text.cursor_blink = False
        text.move_cursor(text.document.end)
        self.query_one("#hint", Lines).show([((self._hint, "dim"),)])

    @on(MessageInput.Submitted)
    def _accept(self) -> None:
        self.dismiss(self.query_one(MessageInput).text)

    def action_back(self) -> None:
        self.dismiss(None)
