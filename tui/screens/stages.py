"""Every stage of the sampling chain: turn it, type it, switch it off."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.geometry import Region
from textual.screen import ModalScreen

from tfm.core.sampling.settings import NEUTRAL, SamplingSettings
from tfm.tui import keymap
from tfm.tui.safe_text import plain
from tfm.tui.screens.prompt import Prompt
from tfm.tui.widgets import knobs
from tfm.tui.widgets.cells import Row, spread
from tfm.tui.widgets.lines import Lines

_ALL = (*knobs.MAIN, *knobs.OTHERS)


class StagesScreen(ModalScreen[None]):
    """Shows all knobs; every change goes to ``on_change`` at once."""

    BINDINGS: ClassVar[list[BindingType]] = [*keymap.STAGES]

    def __init__(self, settings: SamplingSettings, on_change: Callable[[SamplingSettings], None]) -> None:
        super().__init__()
        self._settings = settings
        self._on_change = on_change
        self._row = len(knobs.MAIN)

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog", can_focus=False) as dialog:
            dialog.border_title = plain("All stages")
            dialog.border_subtitle = plain(
                "↑ ↓ choose · ← → turn · Enter type · 0 neutral · N all neutral · Esc back"
            )
            yield Lines()

    def on_mount(self) -> None:
        self.call_after_refresh(self._repaint)

    def on_resize(self) -> None:
        self.call_after_refresh(self._repaint)

    def _repaint(self) -> None:
        lines = self.query_one(Lines)
        lines.show([self._line(n, lines.size.width) for n in range(len(_ALL))])
        self.query_one(VerticalScroll).scroll_to_region(Region(0, self._row, 1, 1), animate=False)

    def _line(self, number: int, columns: int) -> Row:
        knob = _ALL[number]
        value = knobs.value_of(self._settings, knob)
        here, on = number == self._row, value != knob.neutral
        left: Row = (
            ("▸ " if here else "  ", "live"),
            (f"{knob.label:<20}", "strong" if here else ("" if on else "dim")),
            (f"{knobs.format_value(knob, value):<7}", "strong" if on else "dim"),
            *knobs.slider(knob, value, 11),
            ("  ", ""),
        )
        return spread((*left, (knob.help, "dim" if here else "faint")), ((knob.keys, "key"),), columns)

    def _set(self, settings: SamplingSettings) -> None:
        if settings != self._settings:
            self._settings = settings
            self._on_change(settings)
        self._repaint()

    def action_move(self, by: int) -> None:
        self._row = (self._row + by) % len(_ALL)
        self._repaint()

    def action_turn(self, by: int) -> None:
        self._set(knobs.turn(self._settings, _ALL[self._row], by))

    def action_neutral(self) -> None:
        knob = _ALL[self._row]
        self._set(knobs.set_value(self._settings, knob, knob.neutral))

    def action_reset(self) -> None:
        self._set(NEUTRAL)

    def action_exact(self) -> None:
        knob = _ALL[self._row]

        def check(text: str) -> SamplingSettings:
            try:
                value = float(text)
            except ValueError:
                raise ValueError(f"{text!r} is no number") from None
            return knobs.set_value(self._settings, knob, value)

        def done(text: str | None) -> None:
            if text is not None:
                self._set(check(text))

        now = f"{knobs.value_of(self._settings, knob):g}"
        self.app.push_screen(Prompt(knob.label, text=now, hint=knob.help, check=check), done)

    def action_close(self) -> None:
        self.dismiss()
