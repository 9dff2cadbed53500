"""Help: every key, made from the bindings themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll

from tfm.tui import keymap
from tfm.tui.safe_text import plain
from tfm.tui.screens.overlay import Overlay
from tfm.tui.widgets.cells import Row
from tfm.tui.widgets.lines import Lines
from tfm.tui.widgets.wrap import wrap

_KEYS = 16  # cells for the keys
_FIRST = "Single letters work while no text is being typed (Tab or Esc leaves the input)."


class KeyList(Lines):
    """Groups of bindings, each with what it does; long texts go on below themselves."""

    groups: Sequence[tuple[str, Sequence[Binding]]] = ()

    def build(self, columns: int) -> list[Row]:
        rows: list[Row] = [((line, "dim"),) for line in _wrapped(_FIRST, columns)]
        for title, bindings in self.groups:
            rows += [(), ((title, "live"),)]
            keys: dict[str, list[str]] = {}  # what several keys do alike is said once
            for binding in bindings:
                names = keymap.key_names(binding) or "(no key)"
                keys.setdefault(binding.tooltip or binding.description, []).append(names)
            for help, its_keys in keys.items():
                head = f"  {' '.join(its_keys):<{_KEYS}} "
                for text in _wrapped(help, columns - len(head)):
                    rows.append(((head, "key"), (text, "")))
                    head = " " * len(head)
        return rows


def _wrapped(text: str, columns: int) -> list[str]:
    return [text[line.start : line.end].rstrip() for line in wrap(text, 0, max(columns, 10))]


class HelpScreen(Overlay[None]):
    """The keys of the screen below, grouped by where they work."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark", "dismiss", "back")]

    def __init__(self, groups: Sequence[tuple[str, Sequence[Binding]]]) -> None:
        super().__init__()
        self._groups = groups

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog") as dialog:
            dialog.border_title = plain("Keys")
            dialog.border_subtitle = plain("↑ ↓ scroll · Esc back")
            yield KeyList()

    def on_mount(self) -> None:
        keys = self.query_one(KeyList)
        keys.groups = self._groups
        keys.repaint()
