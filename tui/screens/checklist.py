"""Checklist: some of several things, ticked one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from tfm.tui.safe_text import plain, safe_text
from tfm.tui.screens.overlay import Overlay


class Checklist(Overlay[tuple[str, ...] | None]):
    """Ticks among ``(value, text)`` pairs; the answer is in the order in which they were ticked."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "back"),
        Binding("space", "tick", "tick", priority=True),
        Binding("n", "none", "none", priority=True),
    ]

    def __init__(
        self, title: str, options: Sequence[tuple[str, str]], ticked: Sequence[str], most: int
    ) -> None:
        super().__init__()
        self._title, self._options, self._most = title, options, most
        self._ticked = [value for value in ticked if value in [known for known, _ in options]]

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = plain(self._title)
            dialog.border_subtitle = plain("Space tick · n none · Enter accept · Esc back")
            yield OptionList(*(Option(self._line(value, text)) for value, text in self._options))

    def _line(self, value: str, text: str) -> Content:
        return Content(f"{'✓' if value in self._ticked else '·'} {safe_text(text)}")

    def _show(self) -> None:
        options = self.query_one(OptionList)
        for index, (value, text) in enumerate(self._options):
            options.replace_option_prompt_at_index(index, self._line(value, text))

    def action_tick(self) -> None:
        place = self.query_one(OptionList).highlighted
        if place is None:
            return
        value = self._options[place][0]
        if value in self._ticked:
            self._ticked.remove(value)
        elif len(self._ticked) < self._most:
            self._ticked.append(value)
        else:
            self.notify(f"At most {self._most} at once: take one out first.", markup=False)
        self._show()

    def action_none(self) -> None:
        self._ticked.clear()
        self._show()

    def on_option_list_option_selected(self) -> None:
        self.dismiss(tuple(self._ticked))
