"""KeptPart: a mode whose work is saved as it grows, in the same files as the app's, and opened again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Generic

from tfm.tui.export import Page, as_text, export
from tfm.tui.keeper import Keeper
from tfm.tui.plain.commands import command, number
from tfm.tui.plain.part import Part
from tfm.tui.store import Store, W
from tfm.tui.widgets.sampling_panel import Decoding

if TYPE_CHECKING:
    from tfm.tui.plain.dialogue import Dialogue


class KeptPart(Part, Generic[W]):
    """Subclasses hold ``work`` and say how it is written out."""

    work: W

    def __init__(self, dialogue: Dialogue, decoding: Decoding, store: Store[W]) -> None:
        super().__init__(dialogue, decoding)
        self.keeper = Keeper(store, self.speaker.note)

    def fresh(self) -> W:
        """An empty work, held under the same terms."""
        raise NotImplementedError

    def use(self, work: W) -> None:
        self.work = work

    def written(self) -> tuple[Page, Callable[[], bytes]]:
        """The work as a page and as JSON."""
        raise NotImplementedError

    def close(self) -> None:
        self.keeper.save_now()

    async def keep(self) -> None:
        self.keeper.changed(self.work)
        await self.keeper.save()

    @command("new", help="Begin an empty session, held under the same terms.")
    async def new(self, _text: str) -> None:
        await self.keeper.save()
        self.use(self.fresh())
        self.speaker.note("A new session.")

    @command("sessions", help="Saved sessions, the one changed last first.")
    async def sessions(self, _text: str) -> None:
        await self.keeper.save()
        for place, entry in enumerate(await asyncio.to_thread(self.keeper.store.listed), 1):
            now = " (this one)" if entry.key == self.work.key else ""
            self.speaker.say(f"{place}{now}: {entry.problem or entry.title}")

    @command("open", arguments="N", help="Go on with a saved session; its number in /sessions.")
    async def open_session(self, text: str) -> None:
        key = await self._key(text)
        self.use(await asyncio.to_thread(self.keeper.store.open, key))
        self.speaker.say(as_text(self.written()[0]))

    @command("name", arguments="TEXT", help="Give this session a name.")
    async def name(self, text: str) -> None:
        if not text:
            raise ValueError("Say what to call it, such as /name trees.")
        self.work.name = text
        await self.keep()
        self.speaker.note(f"This session is called {text}.")

    @command("delete", arguments="N", help="Remove a saved session for good; its number in /sessions.")
    async def delete(self, text: str) -> None:
        key = await self._key(text)
        self.keeper.forget(key)
        await asyncio.to_thread(self.keeper.store.delete, key)
        if key == self.work.key:
            self.use(self.fresh())
        self.speaker.note("It is gone.")

    @command("export", arguments="[FOLDER]", help="Write the session to files: Markdown, JSON and SVG.")
    async def export(self, text: str) -> None:
        if self.work.empty:
            raise ValueError("There is nothing to export yet.")
        await self.keep()
        folder = Path(text or ".").expanduser().absolute()
        page, as_json = self.written()
        try:
            files = await asyncio.to_thread(
                export, f"{self.NAME}-{self.work.key or 'unsaved'}", page, as_json(), folder
            )
        except OSError as error:
            raise ValueError(f"{folder} cannot be written to: {error.strerror}.") from None
        for path in files:
            self.speaker.say(str(path))

    async def _key(self, text: str) -> str:
        await self.keeper.save()
        keys = await asyncio.to_thread(self.keeper.store.keys)
        if not keys:
            raise ValueError("No session is saved yet.")
        return keys[number(text, "A session", 1, len(keys)) - 1]
