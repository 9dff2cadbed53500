"""ModeScreen: the frame that every mode hangs in. First line, body, last line."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.screen import Screen
from textual.timer import Timer
from textual.widget import Widget

from tfm.tui import keymap, status
from tfm.tui.frame_timer import FrameTimer
from tfm.tui.widgets.bars import FirstHint, Header, KeyLine
from tfm.tui.widgets.lines import keys_of

if TYPE_CHECKING:
    from tfm.tui.app import TfmApp
    from tfm.tui.session import Session


class ModeScreen(Screen[None]):
    """A mode: subclasses give the body and say which keys matter now."""

    MODE: ClassVar[str]
    _frames: FrameTimer | None = None

    def compose(self) -> ComposeResult:
        yield Header(self.MODE)
        yield from self.body()
        if not cast("TfmApp", self.app).settings.welcomed:
            yield FirstHint()
        yield KeyLine()

    def body(self) -> Iterable[Widget]:
        """The widgets between the first and the last line."""
        raise NotImplementedError

    def keys_now(self) -> tuple[Sequence[str], dict[str, str]]:
        """Ids of the bindings that do something now, the most useful first, and labels that differ."""
        raise NotImplementedError

    @property
    def session(self) -> Session:
        """The mode's own model, on the engine that all modes share."""
        app = cast("TfmApp", self.app)
        return app.sessions.get(self.MODE, app.session)

    def told(self, sentence: str) -> str:
        """The sentence with the keys of now in place of the ids in braces."""
        return keys_of(self).told(sentence)

    @property
    def running(self) -> bool:
        """Is something being made that can be stopped?"""
        return False

    @property
    def typing(self) -> bool:
        """Do letters go into a text now?"""
        return self.focused is not None and self.focused.check_consume_key("a", "a")

    @property
    def _update_timer(self) -> Timer:
        if self._frames is None:
            self._frames = FrameTimer.of(self, self._on_timer_update)
        return self._frames

    def _on_timer_update(self) -> None:
        """A frame: composed, reduced to what changed and handed to the terminal."""
        began = time.monotonic()
        super()._on_timer_update()
        cast("TfmApp", self.app).pace.painted(time.monotonic() - began)

    def keep(self) -> None:
        """The app is about to end: save what would be lost."""

    def on_unmount(self) -> None:
        self.keep()

    def refresh_status(self) -> None:
        """The engine or the model changed."""
        if self.is_mounted:
            app = cast("TfmApp", self.app)
            box = status.box_parts(app.box_figures)
            line = status.line_part(app.pace.slow())
            self.query_one(Header).status([*self.session.status(), *line, *box])

    def refresh_keys(self) -> None:
        if self.is_mounted:
            ids, labels = self.keys_now()
            keys = keys_of(self)
            bindings = [keys.of(binding) for binding in keymap.by_id(ids)]
            self.query_one(KeyLine).keys(bindings, labels, typing=self.typing)

    def on_descendant_focus(self) -> None:
        self.refresh_keys()

    def on_descendant_blur(self) -> None:
        self.refresh_keys()

    def on_screen_resume(self) -> None:
        self.refresh_status()
        self.refresh_keys()
