"""TerminalApp: an app that sends its terminal no more than it must, no faster than it can take, and safely.

What the program does is not here (:mod:`tfm.tui.app`), only how it gets onto a terminal.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import RenderableType
from textual import constants, events, on
from textual.app import App
from textual.driver import Driver
from textual.filter import LineFilter, Monochrome, NoColor
from textual.screen import Screen

from tfm.tui.no_color import NoColours
from tfm.tui.pace import QUESTION, Pace
from tfm.tui.safe_text import ControlFilter
from tfm.tui.tight_updates import ONE_WRITE, RESET, Shown, TightUpdate


class TerminalApp(App[int]):
    def __init__(self) -> None:
        super().__init__()
        self.shown = Shown()
        self._on_its_way: RenderableType | None = None  # to the terminal
        self._bracketed = True
        self.pace = Pace(1 / constants.MAX_FPS)

    def on_mount(self) -> None:
        for signalled in (self.app_suspend_signal, self.app_resume_signal):  # a shell in between
            signalled.subscribe(self, lambda _: self.leave_pen())

    def get_driver_class(self) -> type[Driver]:
        from textual.drivers.linux_driver import LinuxDriver

        from tfm.tui.steady_driver import SteadyDriver

        driver = super().get_driver_class()
        return SteadyDriver if driver is LinuxDriver else driver

    @on(Driver.SignalResume)
    def _repaint(self) -> None:
        """Stopped and continued: whatever the terminal shows by now, it is not ours."""
        self.refresh(layout=True)

    # ------------------------------------------------------------------ what is sent
    def _display(self, screen: Screen[object], renderable: RenderableType | None) -> None:
        """Every update on its way to the terminal, reduced to what is not shown yet."""
        self._on_its_way = self.shown.tight(renderable)
        super()._display(screen, self._on_its_way)
        now = time.monotonic()
        if (
            self._driver is not None
            and not self.is_headless
            and self._running
            and self.pace.wants_to_ask(now)
        ):
            self.pace.ask(now)
            self._driver.write(QUESTION)

    def _begin_update(self) -> None:
        """Bracket what a terminal might show half done; of a token on a slow line brackets are a third."""
        update = self._on_its_way
        self._bracketed = (
            not isinstance(update, TightUpdate) or len(update.render_segments(self.console)) > ONE_WRITE
        )
        if self._bracketed:
            super()._begin_update()

    def _end_update(self) -> None:
        if self._bracketed:
            super()._end_update()

    def on_cursor_position(self, event: events.CursorPosition) -> None:
        """The terminal's answer; its time is when it was read, however busy we have been since."""
        self.pace.answer(event.time)

    def on_resize(self) -> None:
        self.shown.forget()  # a terminal may wrap or cut what it shows

    def leave_pen(self) -> None:
        """Write in plain colours from here on: others will."""
        if self._driver is not None and not self.is_headless:
            self._driver.write(RESET)
        self.shown.forget()

    def action_redraw(self) -> None:
        """Paint everything anew, whatever another program has written over it."""
        self.shown.forget()
        self.refresh()
        self.screen.refresh()

    # ------------------------------------------------------------------ what is safe to paint
    def get_line_filters(self) -> Sequence[LineFilter]:
        filters = [*super().get_line_filters(), ControlFilter()]
        if not self.no_color:
            return filters
        return [*(f for f in filters if not isinstance(f, Monochrome | NoColor)), NoColours()]
