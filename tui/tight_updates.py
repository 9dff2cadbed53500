"""Partial screen updates that begin where the change begins.

Textual 8 repaints a changed region from the left edge of its widget (its ``ChopsUpdate`` has a "crop
to x extents" to do). One token at the end of a row then costs the whole row, which over SSH is most of
what is sent. This cuts both ends. ``tests/tui/test_bytes.py`` holds the bytes that it saves.
"""

from __future__ import annotations

from rich.console import Console
from rich.control import Control
from textual._compositor import ChopsUpdate, Compositor


class TightUpdate(ChopsUpdate):
    """The same update, without the unchanged cells to the left of each span."""

    def render_segments(self, console: Console) -> str:
        out: list[str] = []
        for y, first, last in self.spans:
            for end, (x, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                if strip is None or x >= last or end <= first:
                    continue
                begin = max(x, first)
                out.append(Control.move_to(begin, y).segment.text)
                out.append(strip.crop(begin - x, min(end, last) - x).render(console))
        return "".join(out)


class TightCompositor(Compositor):
    """A screen's compositor whose partial updates are tight."""

    def render_partial_update(self) -> ChopsUpdate | None:
        update = super().render_partial_update()
        if update is None:
            return None
        return TightUpdate(update.chops, update.spans, update.chop_ends)
