"""Overlay: what lies over a mode for a while. It is painted as promptly as the mode itself."""

from __future__ import annotations

from textual.screen import ModalScreen, ScreenResultType
from textual.timer import Timer

from tfm.tui.frame_timer import FrameTimer
from tfm.tui.widgets.lines import keys_of


class Overlay(ModalScreen[ScreenResultType]):
    _frames: FrameTimer | None = None

    def told(self, sentence: str) -> str:
        """The sentence with the keys of now in place of the ids in braces."""
        return keys_of(self).told(sentence)

    @property
    def _update_timer(self) -> Timer:
        if self._frames is None:
            self._frames = FrameTimer.of(self, self._on_timer_update)
        return self._frames
