"""The message that is being written: Enter sends it."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import BindingType

from tfm.tui import keymap
from tfm.tui.widgets.source_input import SourceInput


class MessageInput(SourceInput):
    """The same editor as for a text to translate, with keys that say what they do here."""

    BINDINGS: ClassVar[list[BindingType]] = [*keymap.MESSAGE]
