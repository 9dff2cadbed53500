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
from tfm.tui.widgets.cells import Row
from tfm.tui.widgets.lines import Lines

_ALL = (*knobs.MAIN, *knobs.OTHERS)


class Stages(Lines):
    """One row a knob, the chosen one marked."""

    settings = NEUTRAL
    row = len(knobs.MAIN)

    def build(self, columns: int) -> list[Row]:
        return [self._line(number) for number in range(len(_ALL))]

    def _line(self, number: int) -> Row:
        knob = _ALL[number]
        value = knobs.value_of(self.settings, knob)
        here, on = number == self.row, value != knob.neutral
        left: Row = (
            ("▸ " if here else "  ", "live"),
            (f"{knob.label:<20}", "strong" if here else ("" if on else "dim")),
            (f"{knobs.format_value(knob, value):<7}", "strong" if on else "dim"),
            *knobs.slider(knob, value, 11),
            ("  ", ""),
        )
        return (*left, (knob.help, "" if here else "faint"))


class StagesScreen(ModalScreen[None]):
    """Shows all knobs; every change goes to ``on_change`` at once."""

    BINDINGS: ClassVar[list[BindingType]] = [*keymap.STAGES]

    def __init__(self, settings: SamplingSettings, on_change: Callable[[SamplingSettings], None]) -> None:
        super().__init__()
        self._settings = settings
        self._on_change = on_change

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog", can_focus=False) as dialog:
            dialog.border_title = plain("All stages")
            dialog.border_subtitle = plain("← → turn · Enter type · 0 neutral · N all neutral · Esc back")
            yield Stages()

    @property
    def stages(self) -> Stages:
        return self.query_one(Stages)

    @property
    def _knob(self) -> knobs.Knob:
        return _ALL[self.stages.row]

    def on_mount(self) -> None:
        self._set(self._settings)

    def _set(self, settings: SamplingSettings) -> None:
        self.stages.settings = settings
        self.stages.repaint()
        if settings != self._settings:
            self._settings = settings
            self._on_change(settings)

    def action_move(self, by: int) -> None:
        self.stages.row = (self.stages.row + by) % len(_ALL)
        self.stages.repaint()
        self.query_one(VerticalScroll).scroll_to_region(Region(0, self.stages.row, 1, 1), animate=False)

    def action_turn(self, by: int) -> None:
        self._set(knobs.turn(self._settings, self._knob, by))

    def action_neutral(self) -> None:
        self._set(knobs.set_value(self._settings, self._knob, self._knob.neutral))

    def action_reset(self) -> None:
        self._set(NEUTRAL)

    def action_exact(self) -> None:
        knob = self._knob

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
