"""KeptScreen: a mode whose work is saved as it grows, in sessions to list, search and export."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from textual import work

from tfm.tui import clipboard
from tfm.tui.export import Page, as_text, export
from tfm.tui.keeper import Keeper
from tfm.tui.paths import PathSuggester
from tfm.tui.screens.knob_screen import KnobScreen
from tfm.tui.screens.prompt import Prompt
from tfm.tui.screens.sessions import NEW, RENAME, SessionsScreen
from tfm.tui.search import Match, pattern_of
from tfm.tui.widgets.searchable import SearchableRows

SAVE_EVERY = 2.0  # seconds


class Place(NamedTuple):
    """A match and the part of the session that it stands in, where the screen shows one part at a time."""

    part: int
    match: Match | None  # None: it is in a text that marks nothing


class KeptScreen(KnobScreen):
    """The actions of ``keymap.SESSION``. A subclass holds the work and says what it looks like."""

    SESSIONS: ClassVar[str]  # what its sessions are called in a list
    HOLDS: ClassVar[str]  # what is in one: turns, texts

    keeper: Keeper[Any]

    def __init__(self) -> None:
        super().__init__()
        self._query = ""
        self._places: list[Place] = []
        self._at = 0

    # ------------------------------------------------------------------ for the subclass
    @property
    def kept(self) -> Any:
        """The work on the screen."""
        raise NotImplementedError

    def fresh(self) -> Any:
        """An empty work, held under the same terms."""
        raise NotImplementedError

    def use(self, work: Any) -> None:
        """Put another work on the screen."""
        raise NotImplementedError

    def busy(self) -> bool:
        """Is something being written, so that the work cannot be left? Then say how to stop it."""
        raise NotImplementedError

    def changed(self) -> None:
        """The work is another one than on the disk."""
        self.keeper.changed(self.kept)

    def written(self) -> tuple[Page, bytes] | None:
        """The work for people and for programs; None: there is nothing yet."""
        raise NotImplementedError

    @property
    def found_in(self) -> SearchableRows:
        """The rows that mark what is found."""
        raise NotImplementedError

    def places(self, pattern: re.Pattern[str]) -> list[Place]:
        """Every place in the session where the pattern stands."""
        self.found_in.search(pattern)
        return [Place(0, match) for match in self.found_in.matches()]

    def go_to(self, place: Place) -> None:
        """Bring a place into sight."""
        self.found_in.show_match(place.match)

    def say(self, text: str) -> None:
        """A few words on the frame of the text."""
        raise NotImplementedError

    # ------------------------------------------------------------------ sessions
    def _complain(self, sentence: str) -> None:
        self.app.call_later(lambda: self.notify(sentence, severity="error", markup=False, timeout=15))

    async def action_new_session(self) -> None:
        if not self.busy():
            await self.keeper.save()
            self.end_search()
            self.use(self.fresh())

    @work(exclusive=True, group="open")
    async def action_sessions(self) -> None:
        key = await self.app.push_screen_wait(
            SessionsScreen(self.SESSIONS, self.HOLDS, self.keeper, self.kept.key)
        )
        if key is None:
            return
        if key.startswith(RENAME):
            self.kept.name = key.removeprefix(RENAME).strip()
            self.changed()
            self.refresh_status()
        elif not self.busy():
            self.end_search()
            if key == NEW:
                self.use(self.fresh())
            else:
                await self.open_session(key)

    async def open_session(self, key: str) -> None:
        try:
            self.use(await asyncio.to_thread(self.keeper.store.open, key))
        except ValueError as error:
            self.notify(str(error), severity="error", markup=False, timeout=15)

    # ------------------------------------------------------------------ taking it elsewhere
    def action_copy_all(self) -> None:
        written = self.written()
        clipboard.copy(self.app, as_text(written[0]) if written else "", "the whole session")

    def action_export(self) -> None:
        written = self.written()
        if written is None:
            self.notify("There is nothing to export yet.", markup=False)
            return
        page, data = written
        name = f"{self.MODE}-{self.kept.key or 'unsaved'}"

        async def write(text: str) -> str:
            folder = Path(text).expanduser()
            try:
                files = await asyncio.to_thread(export, name, page, data, folder)
            except OSError as error:
                raise ValueError(f"{folder} cannot be written to: {error.strerror}.") from None
            return f"{files[0]}, {files[1].name} and {files[2].name}"

        def done(files: str | None) -> None:
            if files is not None:
                self.notify(f"Written: {files}", markup=False, timeout=10)

        hint = "A folder; a Markdown, a JSON and an SVG file are written there."
        prompt = Prompt("Export", text=str(Path.cwd()), hint=hint, act=write, paths=PathSuggester())
        self.app.push_screen(prompt, done)

    # ------------------------------------------------------------------ finding
    def action_find(self) -> None:
        def check(query: str) -> None:
            self._query = query
            self._places = self.places(pattern_of(query)) if query.strip() else []
            if query.strip() and not self._places:
                raise ValueError(f"{query.strip()!r} stands nowhere in this session.")

        def done(query: str | None) -> None:
            if query is None or not query.strip():
                self.end_search()
                return
            self._at = self._nearest()
            self._show_place()

        hint = self.told(
            f"{{find.next}} next · {{find.previous}} previous · {{{self.MODE}.stop}} ends it · "
            "capitals matter where there are some"
        )
        self.app.push_screen(Prompt("Find", text=self._query, hint=hint, check=check), done)

    def _nearest(self) -> int:
        """The last place: what was written last is in sight."""
        return len(self._places) - 1

    def action_find_next(self, by: int) -> None:
        if not self._query.strip():
            self.action_find()
            return
        self._places = self.places(pattern_of(self._query))  # more may have been written
        if not self._places:
            self.notify(f"{self._query.strip()!r} stands nowhere in this session.", markup=False)
            return
        self._at = (self._at + by) % len(self._places)
        self._show_place()

    def _show_place(self) -> None:
        self.go_to(self._places[self._at])
        self.say(
            f"“{self._query.strip()}” {self._at + 1} of {len(self._places)} · "
            + self.told("{find.next} {find.previous}")
        )

    def end_search(self) -> bool:
        """Mark nothing any more. Was anything marked?"""
        if not self._places:
            return False
        self._places = []
        self.found_in.search(None)
        self.say("")
        return True
