"""The text that is to be translated: Enter sends it, a control key makes a new line."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import BindingType
from textual.message import Message
from textual.strip import Strip
from textual.widgets import TextArea

from tfm.tui import keymap
from tfm.tui.safe_text import safe_text

PASTE_LIMIT = 50_000  # characters; beyond this the layout of the editor takes seconds


class SourceInput(TextArea):
    """A TextArea that submits."""

    BINDINGS: ClassVar[list[BindingType]] = [*keymap.SOURCE]
    KEYS_TITLE = "In the input"  # in the help

    class Submitted(Message):
        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class PasteRefused(Message):
        def __init__(self, length: int) -> None:
            super().__init__()
            self.length = length

    # Priority keys are acted on at once, while the characters typed before them may still wait in this
    # widget's queue: so both actions queue up behind those.
    def action_submit(self) -> None:
        self.call_later(lambda: self.post_message(self.Submitted(self.text)))

    def action_newline(self) -> None:
        self.call_later(self.insert, "\n")

    async def _on_key(self, event: events.Key) -> None:
        """Keys that edit act here and now. Textual looks for their bindings when the key has bubbled up to
        the app, and by then characters that were typed after it may stand in the text: of "x", Backspace,
        "y" typed in one burst, as over a slow line, it would keep "x". Runs before TextArea's own handler."""
        for binding in self._bindings.key_to_bindings.get(event.key, ()):
            if not binding.priority and await self.app.run_action(binding.action, self):
                event.stop()
                event.prevent_default()
                return

    def render_line(self, y: int) -> Strip:
        """In a box without room the editor cannot even lay out its placeholder."""
        return super().render_line(y) if self.content_size.width > 0 else Strip.blank(self.size.width)

    async def _on_paste(self, event: events.Paste) -> None:
        """Runs before TextArea's own handler, which then inserts what is left in the event."""
        if len(event.text) + len(self.text) > PASTE_LIMIT:
            event.stop()
            event.prevent_default()
            self.post_message(self.PasteRefused(len(event.text)))
        else:
            event.text = safe_text(event.text.replace("\r\n", "\n").replace("\r", "\n"), newlines=True)
