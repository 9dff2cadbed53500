"""NO_COLOR (https://no-color.org): what colours say is said by bold, dim, underline and reverse alone.

Textual answers NO_COLOR with shades of grey, which are colours all the same and vanish where a terminal
has none.
"""

from __future__ import annotations

from functools import lru_cache

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter

_FAR = 0.25  # difference in brightness from which a background is there to be seen
_NEAR = 0.40  # difference in brightness to the page below which a text steps back


class NoColours(LineFilter):
    """Takes the colours out. A background that stands out becomes reverse, a faint text dim."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        page = background.rgb
        return [
            Segment(text, None if style is None else _plain(style, page), control)
            for text, style, control in segments
        ]


@lru_cache(4096)
def _plain(style: Style, page: tuple[int, int, int]) -> Style:
    below, back = Color(*page).brightness, _brightness(style.bgcolor)
    fore = _brightness(style.color)
    stands_out = back is not None and abs(back - below) > _FAR
    recedes = not stands_out and fore is not None and abs(fore - below) < _NEAR
    return Style(
        bold=style.bold, italic=style.italic, underline=style.underline, strike=style.strike,
        dim=True if recedes else style.dim, reverse=bool(style.reverse) != stands_out, meta=style.meta,
    )  # fmt: skip


def _brightness(color: object) -> float | None:
    from rich.color import Color as RichColor

    if not isinstance(color, RichColor) or color.is_default:
        return None
    return Color(*color.get_truecolor()).brightness
