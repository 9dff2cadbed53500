"""The list of checkpoints, by where they come from; one of them is chosen."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import BindingType
from textual.message import Message

from tfm.core.engine.protocol import ModelInfo
from tfm.tui import keymap
from tfm.tui.commands.output import human_bytes, human_count
from tfm.tui.safe_text import safe_text
from tfm.tui.shelf import Shelf, does
from tfm.tui.widgets.cells import Row, Span, fit, spread, width
from tfm.tui.widgets.painted import PaintedRows

NAME = 24  # cells for a name, at the most
Entry = Row | int  # a heading, or the number of a model


class ModelList(PaintedRows, can_focus=True):
    """Rows for the models of a :class:`Shelf`, which the screen changes; :meth:`show` follows."""

    BINDINGS: ClassVar[list[BindingType]] = [*keymap.MODEL_LIST]
    KEYS_TITLE = "In the list"

    class Move(Message):
        def __init__(self, by: int) -> None:
            super().__init__()
            self.by = by

    def __init__(self, shelf: Shelf, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.shelf = shelf
        self.message = "Looking for models …"
        self._entries: list[Entry] = []
        self._following = False

    def show(self) -> None:
        """The shelf has changed."""
        self._entries = self._laid_out()
        self._following = False
        at = next((y for y, entry in enumerate(self._entries) if entry == self.shelf.chosen), 0)
        top = at - 1 if at and not isinstance(self._entries[at - 1], int) else at  # its heading, too
        self.show_rows(0 if self.shelf.chosen == 0 else top, at)
        self.touch()

    def action_move(self, by: int) -> None:
        self.post_message(self.Move(by))

    def action_page(self, by: int) -> None:
        self.post_message(self.Move(by * max(1, self.scrollable_content_region.height - 2)))

    # ------------------------------------------------------------------ rows
    def _laid_out(self) -> list[Entry]:
        models = self.shelf.models
        if not models:
            return [((self.message, "dim"),)]
        found: list[Entry] = []
        local = [n for n, info in enumerate(models) if info.source == "local"]
        for title, numbers in (
            ("Bundled with the program", [n for n, info in enumerate(models) if info.source == "bundled"]),
            ("Yours", local),
        ):
            found += [((title, "faint"),), *numbers]
        if not local:
            found.append((("  none yet: i imports one, g fetches SmolLM2", "dim"),))
        trained = [n for n, info in enumerate(models) if info.source == "run"]
        found += [(("Training runs", "faint"),), *trained] if trained else []
        return found

    @property
    def n_rows(self) -> int:
        return len(self._entries)

    def set_columns(self, columns: int) -> None:
        """Rows are made anew for every width; nothing is kept."""

    def row(self, y: int) -> Row:
        entry = self._entries[y]
        return self._model(entry) if isinstance(entry, int) else fit(entry, self.columns)

    def _model(self, number: int) -> Row:
        info, here = self.shelf.models[number], number == self.shelf.chosen
        names = [width(((safe_text(other.name), ""),)) for other in self.shelf.models]
        room = min(max(names), NAME if self.columns > 70 else NAME - 6, max(8, self.columns - 30))
        name = fit(((safe_text(info.name), "strong" if here else ""),), room)
        left: list[Span] = [("▸ " if here else "  ", "live"), *name, (" " * (room - width(name) + 2), "")]
        right = self._state(info)
        if info.problem:
            return spread((*left, (safe_text(info.problem), "bad")), right, self.columns)
        cells: list[Span] = [
            (f"{does(info):<10}", "second"),
            (f"{human_count(info.n_parameters):>6} ", ""),
            (f"{human_bytes(info.size_bytes):>9} ", "dim"),
            (f"{info.max_positions:>7,}  ", "dim"),
        ]
        cells += [(f"{safe_text(name)} {score:.3g}  ", "dim") for name, score in info.scores.items()]
        for cell in cells:
            if width((*left, cell, *right)) > self.columns:
                break
            left.append(cell)
        return spread(tuple(left), right, self.columns)

    def _state(self, info: ModelInfo) -> Row:
        """What is going on with it, else whether it is in memory."""
        work = next((work for work in self.shelf.works if work.name == info.name), None)
        if work is not None:
            return ((f"{work.fraction:.0%}", "live"),)
        compared = self.shelf.compared
        if compared is not None and compared.path == info.path:
            return (("A", "live"),)
        held = self.shelf.in_memory(info)
        return ((f"● {' '.join(model.precision for model in held)}", "live"),) if held else ()
