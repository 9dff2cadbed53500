"""Presets: take one, keep the settings of now under a name, rename and delete one's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import ClassVar

from textual import work
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.geometry import Region

from tfm.core.sampling.settings import PRESETS, SamplingSettings
from tfm.tui import chain, keymap
from tfm.tui.presets import Found, NameTaken, PresetFolder
from tfm.tui.safe_text import plain
from tfm.tui.screens.overlay import Overlay
from tfm.tui.screens.prompt import Choice, Prompt
from tfm.tui.widgets.cells import Row
from tfm.tui.widgets.lines import Lines

_NAME = 16  # columns


class PresetRows(Lines):
    """One row a preset; those that ship with the app, then one's own."""

    found = Found()
    now: str | None = None  # the preset that the settings of now are
    row = 0

    @property
    def names(self) -> list[str]:
        return [*self.found.all, *self.found.problems]

    @property
    def chosen(self) -> str:
        return self.names[min(self.row, len(self.names) - 1)]

    def build(self, columns: int) -> list[Row]:
        rows: list[Row] = []
        for number, name in enumerate(self.names):
            if number == len(PRESETS):
                rows.append((("  your own", "faint"),))
            rows.append(self._line(number, name))
        if len(self.names) == len(PRESETS):
            rows += [(("  your own", "faint"),), (("  none yet: w keeps the settings of now", "dim"),)]
        return rows

    def line_of(self, number: int) -> int:
        """The line on which a preset stands."""
        return number + (number >= len(PRESETS))

    def _line(self, number: int, name: str) -> Row:
        here = number == self.row
        mark: Row = (("▸ " if here else "  ", "live"), ("● " if name == self.now else "  ", "live"))
        problem = self.found.problems.get(name)
        told = problem or chain.summary(self.found.all[name])
        room = max(_NAME, max(map(len, self.names), default=0))
        return (
            *mark,
            (f"{name:<{room}}  ", "strong" if here else ""),
            (told, "bad" if problem else ("" if here else "dim")),
        )


class PresetList(Overlay[None]):
    """``on_use`` is given the settings that are taken, ``on_change`` what the folder holds after a change."""

    BINDINGS: ClassVar[list[BindingType]] = [*keymap.PRESETS]

    def __init__(
        self,
        folder: PresetFolder,
        found: Found,
        settings: SamplingSettings,
        on_use: Callable[[SamplingSettings], None],
        on_change: Callable[[Found], None],
    ) -> None:
        super().__init__()
        self._folder, self._found, self._settings = folder, found, settings
        self._on_use, self._on_change = on_use, on_change

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog", id="presets") as dialog:
            dialog.border_title = plain("Presets")
            dialog.border_subtitle = plain(
                self.told(
                    "{presets.take} take · {presets.save} save as · {presets.rename} rename · "
                    "{presets.delete} delete · {presets.close} back"
                )
            )
            with VerticalScroll(id="preset-rows", can_focus=False):
                yield PresetRows()

    @property
    def rows(self) -> PresetRows:
        return self.query_one(PresetRows)

    def on_mount(self) -> None:
        self._show(self._found.name_of(self._settings))
        self._read(None)

    def _show(self, name: str | None) -> None:
        """List anew, this preset chosen."""
        rows = self.rows
        rows.found, rows.now = self._found, self._found.name_of(self._settings)
        rows.row = rows.names.index(name) if name in rows.names else min(rows.row, len(rows.names) - 1)
        rows.repaint()
        line = Region(0, rows.line_of(rows.row), 1, 1)
        self.query_one("#preset-rows", VerticalScroll).scroll_to_region(line, animate=False)

    @work(exclusive=True, group="read")
    async def _read(self, name: str | None) -> None:
        """Look at the folder again: another window may have changed it."""
        self._found = await asyncio.to_thread(self._folder.read)
        self._on_change(self._found)
        self._show(name or self.rows.chosen)

    # ------------------------------------------------------------------ keys
    def action_move(self, by: int) -> None:
        self._show(self.rows.names[(self.rows.row + by) % len(self.rows.names)])

    def action_take(self) -> None:
        settings = self._found.all.get(self.rows.chosen)
        if settings is not None:
            self._on_use(settings)
            self.dismiss()

    @work(exclusive=True, group="save")
    async def action_save(self) -> None:
        suggested = self.rows.chosen if self.rows.chosen in self._found.own else ""
        name = await save_as(self.app, self._folder, self._settings, suggested)
        if name is not None:
            self._read(name)

    def action_rename(self) -> None:
        if (old := self._own()) is None:
            return

        async def rename(text: str) -> str:
            return await asyncio.to_thread(self._folder.rename, old, text)

        def done(name: str | None) -> None:
            if name is not None:
                self._read(name)

        self.app.push_screen(Prompt(f"Another name for {old}", text=old, act=rename), done)

    @work(exclusive=True, group="delete")
    async def action_delete(self) -> None:
        if (name := self._own()) is None:
            return
        options = [("keep", Content("keep it")), ("delete", Content(f"delete {name}"))]
        if await self.app.push_screen_wait(Choice(f"Delete {name}?", options, "keep")) == "delete":
            try:
                await asyncio.to_thread(self._folder.delete, name)
            except ValueError as error:
                self.notify(str(error), severity="error", markup=False)
            self._read(None)

    def _own(self) -> str | None:
        """The chosen preset, where it is one's own."""
        name = self.rows.chosen
        if name in PRESETS:
            self.notify(f"{name} belongs to the app: w keeps a copy under another name.", markup=False)
            return None
        return name

    def action_close(self) -> None:
        self.dismiss()


async def save_as(
    app: App[int], folder: PresetFolder, settings: SamplingSettings, suggested: str
) -> str | None:
    """Ask for a name and keep the settings under it, after another question where one has that name.

    Returns the name; None: it was left. Call it in a worker.
    """
    taken = False

    async def write(text: str) -> str:
        nonlocal taken
        try:
            return await asyncio.to_thread(folder.save, text, settings)
        except NameTaken:
            taken = True
            return text

    hint = chain.summary(settings)
    name = await app.push_screen_wait(
        Prompt("Keep these settings as a preset", text=suggested, hint=hint, act=write)
    )
    if name is not None and taken:
        options = [
            ("keep", Content("leave it as it is")),
            ("over", Content("put these settings in its place")),
        ]
        if await app.push_screen_wait(Choice(f"There is a preset {name} already", options, "keep")) != "over":
            return None
        try:
            return await asyncio.to_thread(partial(folder.save, name, settings, over=True))
        except ValueError as error:
            app.notify(str(error), severity="error", markup=False)
            return None
    return name
