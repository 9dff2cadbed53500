"""Small overlays: one line of text asked for, one thing chosen from a list."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from tfm.tui.paths import PathSuggester
from tfm.tui.safe_text import plain, safe_text
from tfm.tui.screens.overlay import Overlay
from tfm.tui.widgets.lines import Lines
from tfm.tui.widgets.wrap import wrap


class Prompt(Overlay[str | None]):
    """Asks for one line.

    ``check`` looks at it at once; ``act`` does something with it that takes a while, and what it
    returns is the answer. Both raise ValueError with the sentence that is shown in place; what was
    typed stays. ``paths``: it is a path on this machine, which Tab completes.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "back"),
        Binding("tab", "complete", "complete", priority=True),
    ]

    def __init__(
        self,
        title: str,
        *,
        text: str = "",
        paths: PathSuggester | None = None,
        hint: str = "",
        check: Callable[[str], object] | None = None,
        act: Callable[[str], Awaitable[str]] | None = None,
    ) -> None:
        super().__init__()
        self._title, self._text, self._hint = title, text, hint
        self._check, self._act, self._paths = check, act, paths

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = plain(self._title)
            completes = "Tab complete · " if self._paths else ""
            dialog.border_subtitle = plain(f"{completes}Enter accept · Esc back")
            yield Input(self._text, select_on_focus=True, suggester=self._paths)
            yield Lines(id="answer")

    def on_mount(self) -> None:
        self._say(self._hint, "dim")

    def on_input_changed(self) -> None:
        self._say(self._hint, "dim")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self._submit(event.value)

    @work(exclusive=True)
    async def _submit(self, text: str) -> None:
        try:
            if self._check is not None:
                self._check(text)
            if self._act is not None:
                self._say("…", "live")
                text = await self._act(text)
        except ValueError as error:
            self._say(str(error), "bad")
        else:
            self.dismiss(text)

    def _say(self, sentence: str, style: str) -> None:
        """A sentence under the line, wrapped."""
        answer = self.query_one("#answer", Lines)
        sentence = safe_text(sentence)
        rows = wrap(sentence, 0, max(10, (answer.size.width or 60)))
        answer.show([((sentence[row.start : row.end], style),) for row in rows])

    def action_complete(self) -> None:
        """Take the path that is suggested."""
        line = self.query_one(Input)
        line.action_end()
        line.action_cursor_right()

    def action_back(self) -> None:
        self.dismiss(None)


class Choice(Overlay[str | None]):
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
