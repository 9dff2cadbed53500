"""Small overlays: one line of text asked for, one thing chosen from a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from tfm.tui.safe_text import plain
from tfm.tui.widgets.lines import Lines


class Prompt(ModalScreen[str | None]):
    """Asks for one line. ``check`` raises ValueError with the sentence that is shown in place."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss", "back")]

    def __init__(
        self, title: str, *, text: str = "", hint: str = "", check: Callable[[str], object] | None = None
    ) -> None:
        super().__init__()
        self._title, self._text, self._hint, self._check = title, text, hint, check

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = plain(self._title)
            dialog.border_subtitle = plain("Enter accept · Esc back")
            yield Input(self._text, select_on_focus=True)
            yield Lines(id="answer")

    def on_mount(self) -> None:
        self.query_one("#answer", Lines).show([((self._hint, "dim"),)])

    def on_input_changed(self) -> None:
        self.query_one("#answer", Lines).show([((self._hint, "dim"),)])

    def on_input_submitted(self, event: Input.Submitted) -> None:
        try:
            if self._check is not None:
                self._check(event.value)
        except ValueError as error:
            self.complain(str(error))
        else:
            self.dismiss(event.value)

    def complain(self, sentence: str) -> None:
        """Show what is wrong under the line, wrapped; what was typed stays."""
        from tfm.tui.widgets.wrap import wrap

        answer = self.query_one("#answer", Lines)
        rows = wrap(sentence, 0, max(10, answer.size.width))
        answer.show([((sentence[row.start : row.end], "bad"),) for row in rows])


class Choice(ModalScreen[str | None]):
    """Choose one of ``(value, text)`` pairs."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss", "back")]

    def __init__(self, title: str, options: Sequence[tuple[str, Content]], chosen: str | None = None) -> None:
        super().__init__()
        self._title, self._options, self._chosen = title, options, chosen

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = plain(self._title)
            dialog.border_subtitle = plain("Enter choose · Esc back")
            yield OptionList(*(Option(text) for _, text in self._options))

    def on_mount(self) -> None:
        values = [value for value, _ in self._options]
        if self._chosen in values:
            self.query_one(OptionList).highlighted = values.index(self._chosen)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._options[event.option_index][0])
