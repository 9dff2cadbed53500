"""The saved sessions of a mode: open one, name it, delete it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from tfm.tui import keymap
from tfm.tui.keeper import Keeper
from tfm.tui.safe_text import plain, safe_text
from tfm.tui.screens.overlay import Overlay
from tfm.tui.screens.prompt import Prompt
from tfm.tui.store import Listed

NEW = ""  # what the screen answers for a new session


class SessionsScreen(Overlay[str | None]):
    """Answers the key of the session that was chosen, ``NEW``, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [*keymap.SESSIONS]

    def __init__(self, title: str, what: str, keeper: Keeper[Any], shown: str) -> None:
        """``what`` a session holds: turns, texts. ``shown``: the key of the one on the screen."""
        super().__init__()
        self._title, self._what, self._keeper, self._shown = title, what, keeper, shown
        self._listed: Sequence[Listed] = ()
        self._doomed = ""  # the session that the next press of the key deletes

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = plain(self._title)
            yield OptionList()

    async def on_mount(self) -> None:
        await self._fill(self._shown)

    @property
    def _options(self) -> OptionList:
        return self.query_one(OptionList)

    async def _fill(self, chosen: str) -> None:
        await self._keeper.save()
        self._listed = await asyncio.to_thread(self._keeper.store.listed)
        options = self._options
        options.clear_options()
        options.add_options([Option(self._row(entry)) for entry in self._listed])
        keys = [entry.key for entry in self._listed]
        if keys:
            options.highlighted = keys.index(chosen) if chosen in keys else 0
        self._say("")

    def _row(self, entry: Listed) -> Content:
        when = time.strftime("%d %b %H:%M  ", time.localtime(entry.changed))
        if entry.problem:
            return Content.styled(when, "$quiet") + Content.styled(safe_text(entry.problem), "$error")
        what = self._what if entry.size != 1 else self._what.removesuffix("s")
        here = "▸ " if entry.key == self._shown else "  "
        title = Content(safe_text(entry.title or "(nothing yet)"))
        about = Content.styled(f"  {entry.size} {what}", "$quiet")
        return Content.styled(here, "$accent") + Content.styled(when, "$quiet") + title + about

    def _say(self, sentence: str) -> None:
        keys = "{sessions.new} new · {sessions.close} back"
        if self._listed:
            keys = (
                "Enter open · {sessions.new} new · {sessions.rename} name · {sessions.delete} delete · "
                "{sessions.close} back"
            )
        self.query_one(".dialog").border_subtitle = plain(sentence or self.told(keys))

    @property
    def _chosen(self) -> Listed | None:
        at = self._options.highlighted
        return self._listed[at] if at is not None and at < len(self._listed) else None

    @on(OptionList.OptionSelected)
    def _selected(self) -> None:
        if self._chosen is not None:
            self.dismiss(self._chosen.key)

    @on(OptionList.OptionHighlighted)
    def _moved(self) -> None:
        if self._doomed:
            self._doomed = ""
            self._say("")

    def action_new(self) -> None:
        self.dismiss(NEW)

    def action_close(self) -> None:
        self.dismiss(None)

    @work(exclusive=True)
    async def action_rename(self) -> None:
        chosen = self._chosen
        if chosen is None or chosen.problem:
            return
        name = await self.app.push_screen_wait(Prompt("Name", text=chosen.title, hint="Empty: as it begins."))
        if name is None:
            return
        if chosen.key == self._shown:  # the screen itself saves this one
            self.dismiss(f"{RENAME}{name}")
            return
        try:
            await asyncio.to_thread(self._keeper.store.rename, chosen.key, name)
        except (ValueError, OSError) as error:
            self.notify(str(error), severity="error", markup=False)
        await self._fill(chosen.key)

    @work(exclusive=True)
    async def action_delete(self) -> None:
        """Asks by wanting the key a second time."""
        chosen = self._chosen
        if chosen is None:
            return
        if chosen.key == self._shown:
            self._say("This one is open: begin a new one first (n)")
        elif self._doomed != chosen.key:
            self._doomed = chosen.key
            self._say("d again deletes it for good")
        else:
            self._doomed = ""
            try:
                await asyncio.to_thread(self._keeper.store.delete, chosen.key)
            except OSError as error:
                self.notify(f"It cannot be deleted: {error.strerror}.", severity="error", markup=False)
            await self._fill(self._shown)


RENAME = "name:"  # before the new name of the session on the screen
