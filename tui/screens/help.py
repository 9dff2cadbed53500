"""Help: every key, made from the bindings themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen

from tfm.tui import keymap
from tfm.tui.safe_text import plain
from tfm.tui.widgets.cells import Row
from tfm.tui.widgets.lines import Lines


class HelpScreen(ModalScreen[None]):
    """The keys of the screen below, grouped by where they work."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark", "dismiss", "back")]

    def __init__(self, groups: Sequence[tuple[str, Sequence[Binding]]]) -> None:
        super().__init__()
        self._groups = groups

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog") as dialog:
            dialog.border_title = plain("Keys")
            dialog.border_subtitle = plain("↑ ↓ scroll · Esc back")
            yield Lines()

    def on_mount(self) -> None:
        rows: list[Row] = [
            (("Single letters work while no text is being typed (Tab or Esc leaves the input).", "dim"),),
        ]
        for title, bindings in self._groups:
            rows += [(), ((title, "live"),)]
            keys: dict[str, list[str]] = {}  # what several keys do alike is said once
            for binding in bindings:
                help = binding.tooltip or binding.description
                keys.setdefault(help, []).append(keymap.key_names(binding))
            rows += [((f"  {' '.join(names):<16} ", "key"), (help, "")) for help, names in keys.items()]
        self.query_one(Lines).show(rows)
