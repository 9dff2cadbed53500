"""The first line and the last: where you are and what the engine does, and the keys that matter now."""

from __future__ import annotations

from collections.abc import Sequence

from textual.binding import Binding
from textual.events import Click

from tfm.tui import keymap, status
from tfm.tui.status import Part
from tfm.tui.widgets.cells import Row, Span, spread, width
from tfm.tui.widgets.lines import Lines


class Header(Lines):
    """The modes on the left, the state of the engine and the model on the right."""

    def __init__(self, mode: str) -> None:
        super().__init__(id="header")
        self._mode = mode
        self._status: tuple[Part, ...] = ()

    def status(self, parts: Sequence[Part]) -> None:
        if tuple(parts) != self._status:
            self._status = tuple(parts)
            self.repaint()

    def build(self, columns: int) -> Sequence[Sequence[Span]]:
        needed = status.needed(self._status) + 1
        shapes = [self._modes("full"), self._modes("digits"), self._modes("titles"), self._modes("here")]
        row = next((shape for shape in shapes if width(shape) + needed <= columns), shapes[-1])
        right = (*status.line(self._status, columns - width(row) - 1), (" ", ""))
        return [spread(row, right, columns)]

    def _modes(self, shape: str) -> Row:
        """The modes' names: each behind its key, behind its digit alone, without; or only where we are."""
        keys = self.keys_of_now
        spans: list[Span] = [(" tfm ", "live"), (" ", "")]
        for number, mode in enumerate(keymap.MODES):
            here = mode.name == self._mode
            key = keys.name(f"mode.{mode.name}")
            if shape == "digits" and number and key[0] == "F":
                key = key[1:]
            if shape in ("full", "digits"):
                spans.append((f"{key} ", "dim"))
            if here or shape != "here":
                spans.append((mode.title, "here" if here else "dim"))
                spans.append((" " if shape == "digits" else "  ", ""))
        return tuple(spans)

    async def on_click(self, event: Click) -> None:
        """A click on a mode's name goes there."""
        column = 0
        for text, _ in self.rows[0] if self.rows else ():
            column += len(text)
            if event.x < column:
                for mode in keymap.MODES:
                    if mode.title == text:
                        await self.app.run_action(f"mode('{mode.name}')")
                return


class FirstHint(Lines):
    """What to press, for whoever is here for the first time. Pressing any of it makes this go for good."""

    def build(self, columns: int) -> Sequence[Sequence[Span]]:
        name = self.keys_of_now.name
        first, last = name(f"mode.{keymap.MODES[0].name}"), name(f"mode.{keymap.MODES[-1].name}")
        ways = ((f"{first} to {last}", "modes"), (name("app.help_typing"), "all keys"),
                (name("app.palette"), "all commands"), (name("source.submit"), "sends"))  # fmt: skip
        spans: list[Span] = [(" New here? ", "live")]
        for key, what in ways:
            spans += [(" " if len(spans) == 1 else " · ", "dim"), (key, "key"), (f" {what}", "")]
        rest: Span = ("   try one, and this line goes", "dim")
        return [(*spans, rest) if width((*spans, rest)) <= columns else tuple(spans)]


class KeyLine(Lines):
    """Keys that do something now; help and the palette stay at the right end whatever happens."""

    def __init__(self) -> None:
        super().__init__(id="keys")
        self._keys: tuple[tuple[str, str], ...] = ()
        self._typing = False

    def keys(self, bindings: Sequence[Binding], labels: dict[str, str], *, typing: bool) -> None:
        """Neighbours with one label share it. ``labels`` renames by id. ``typing``: letters go into a
        text, so help is shown by its function key."""
        shown: list[tuple[str, str]] = []
        for binding in bindings:
            if not binding.key:
                continue  # a keys.toml left it without one
            key = keymap.key_name(binding.key.split(",")[0])
            label = labels.get(binding.id or "", binding.description)
            if shown and shown[-1][1] == label:
                key = f"{shown.pop()[0]} {key}"
            shown.append((key, label))
        if tuple(shown) != self._keys or typing != self._typing:
            self._keys, self._typing = tuple(shown), typing
            self.repaint()

    def build(self, columns: int) -> Sequence[Sequence[Span]]:
        name = self.keys_of_now.name
        help_key = name("app.help_typing" if self._typing else "app.help")
        palette_key = name("app.palette")
        right: Row = ((help_key, "key"), (" help  ", "dim"), (palette_key, "key"), (" commands ", "dim"))
        room = columns - width(right) - 1
        spans: list[Span] = []
        for keys, label in self._keys:
            entry = [("   " if spans else " ", ""), (keys, "key"), (f" {label}", "dim")]
            if width((*spans, *entry)) > room:
                break
            spans += entry
        return [spread(tuple(spans), right, columns)]
