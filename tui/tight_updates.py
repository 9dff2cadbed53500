"""What is sent to the terminal: only cells that it does not show already, in as few bytes as they take.

Textual 8 sends whole strips: a changed region from the left edge of its widget, every segment with its
full colours and a reset, and at a scroll or a change of layout everything, borders and blanks included.
Over SSH that is most of what is sent. :class:`Shown` remembers what the terminal shows, as curses does,
and turns each update into the difference. The pen (colours and attributes) stays as the last frame left it.

Terminals do not agree on the width of emoji sequences, flags and the like. After such a character the
cursor is placed anew and what it may have covered is written again, so a wrong guess spoils that
character and never the layout. ``tests/tui/test_bytes.py`` holds the bytes that all this saves.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from rich.color import ColorSystem
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.strip import Strip

from tfm.tui.widgets.cells import graphemes

RESET = "\x1b[m"
ONE_WRITE = 256  # characters: what is shorter reaches a terminal in one piece, and cannot be seen half done
GAP = 4  # so many cells that did not change are written again rather than jumped over: a jump costs as much
_ATTRIBUTES = {
    "bold": "1", "dim": "2", "italic": "3", "underline": "4", "blink": "5", "blink2": "6", "reverse": "7",
    "conceal": "8", "strike": "9", "underline2": "21", "frame": "51", "encircle": "52", "overline": "53",
}  # fmt: skip
_OFF = {
    "1": "22", "2": "22", "3": "23", "4": "24", "5": "25", "6": "25", "7": "27", "8": "28", "9": "29",
    "21": "24", "51": "54", "52": "54", "53": "55",
}  # fmt: skip
_SEEN_ON_BLANKS = frozenset(("4", "7", "9", "21", "51", "52", "53"))
_doubtful = re.compile(
    "[\u200d\ufe0e\ufe0f\U0001f1e6-\U0001f1ff\U0001f3fb-\U0001f3ff]|[\U0001f000-\U0001ffff]|"
    "[\u1160-\u11ff\ud7b0-\ud7fb]"
)


class Pen(NamedTuple):
    """How a terminal writes: SGR parameters. ``text`` is empty where it does not show, as on a blank."""

    text: str
    ground: str
    attributes: frozenset[str]


Cell = tuple[str, Pen]  # the right half of a wide character is ("", pen)


class Shown:
    """What one terminal shows."""

    def __init__(self) -> None:
        self._rows: dict[int, dict[int, Cell]] = {}
        self._size = (0, 0)
        self._pen: Pen | None = None

    def forget(self) -> None:
        """The terminal may show anything now: the next update is written in full."""
        self._rows.clear()
        self._pen = None

    def tight(self, update: RenderableType | None) -> RenderableType | None:
        """The same update for this terminal; it counts as shown when it is rendered."""
        if isinstance(update, LayoutUpdate | ChopsUpdate):
            return TightUpdate(self, update)
        if update is not None:
            self.forget()
        return update

    def difference(self, update: LayoutUpdate | ChopsUpdate, system: ColorSystem) -> str:
        """What makes a terminal show the update."""
        if isinstance(update, LayoutUpdate) and update.region.size != self._size:
            self.forget()
            self._size = update.region.size
        out: list[str] = []
        for y, x, strips in _pieces(update):
            self._write(y, _cells(x, strips, system), out)
        return "".join(out)

    def _write(self, y: int, cells: dict[int, Cell], out: list[str]) -> None:
        row = self._rows.setdefault(y, {})
        changed = [x for x, cell in cells.items() if row.get(x) != cell]
        if not changed:
            return
        row.update(cells)
        spilled: set[int] = set()
        for x in changed:
            spilled.update(range(x + _width(row, x), x + _most(row[x][0])))
        if spilled:
            changed = sorted({*changed, *(x for x in spilled if x in row)})
        here = -1  # the column of the cursor; -1: it may be anywhere
        for x in changed:
            text, pen = row[x]
            if not text and x != here:
                continue  # the right half of a character that is written, or was there
            if here != x:
                here = self._go(y, here, x, row, out)
            if not text:
                continue
            self._change_pen(pen, out)
            here = x + _width(row, x)
            if _is_doubtful(text):
                blanks = " " * (here - x)
                out.append(f"{blanks}{_at(y, x)}{text}")
                here = -1
            else:
                out.append(text)

    def _go(self, y: int, here: int, x: int, row: dict[int, Cell], out: list[str]) -> int:
        """Have the cursor at a column: by writing what stands between again, or by a jump."""
        between = [row.get(column) for column in range(here, x)] if 0 <= here < x <= here + GAP else []
        if between and all(cell and len(cell[0]) == 1 and _same(cell[1], self._pen) for cell in between):
            out.extend(cell[0] for cell in between if cell)
        elif 0 <= here < x:
            out.append(f"\x1b[{x - here}C" if x - here > 1 else "\x1b[C")
        else:
            out.append(_at(y, x))
        return x

    def _change_pen(self, pen: Pen, out: list[str]) -> None:
        if self._pen is None or not _same(pen, self._pen):
            codes, self._pen = _change(self._pen, pen)
            out.append(codes)


class TightUpdate(CompositorUpdate):
    """An update as the difference to what is shown."""

    def __init__(self, shown: Shown, update: LayoutUpdate | ChopsUpdate) -> None:
        self._shown = shown
        self._update = update
        self._written: str | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self._update.__rich_console__(console, options)

    def render_segments(self, console: Console) -> str:
        if self._written is None:
            system = console._color_system or ColorSystem.TRUECOLOR
            self._written = self._shown.difference(self._update, system)
        return self._written


def _pieces(update: LayoutUpdate | ChopsUpdate) -> Iterator[tuple[int, int, Iterable[Strip]]]:
    """Row, first column and strips of each piece of an update."""
    if isinstance(update, LayoutUpdate):
        for y, strips in enumerate(update.strips, update.region.y):
            yield y, update.region.x, strips
        return
    for y, first, last in update.spans:
        for end, (x, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
            if strip is not None and x < last and end > first:
                begin = max(x, first)
                yield y, begin, (strip.crop(begin - x, min(end, last) - x),)


def _cells(x: int, strips: Iterable[Strip], system: ColorSystem) -> dict[int, Cell]:
    cells: dict[int, Cell] = {}
    start = x
    for strip in strips:
        for text, style, _ in strip:
            pen = _pen(style or Style.null(), system)
            blank = pen if pen.attributes & _SEEN_ON_BLANKS else pen._replace(text="")
            for character, wide in graphemes(text):
                if wide == 0:
                    if x > start:
                        before = x - 1 if cells[x - 1][0] else x - 2
                        cells[before] = (cells[before][0] + character, cells[before][1])
                    continue
                cells[x] = (character, blank if character == " " else pen)
                for right in range(x + 1, x + wide):
                    cells[right] = ("", pen)
                x += wide
    return cells


@lru_cache(4096)
def _pen(style: Style, system: ColorSystem) -> Pen:
    text, ground = style.color, style.bgcolor
    return Pen(
        ";".join(text.downgrade(system).get_ansi_codes()) if text else "39",
        ";".join(ground.downgrade(system).get_ansi_codes(foreground=False)) if ground else "49",
        frozenset(code for name, code in _ATTRIBUTES.items() if getattr(style, name)),
    )


def _same(one: Pen, other: Pen | None) -> bool:
    """Does a pen write what the other writes?"""
    return other is not None and one.text in ("", other.text) and one[1:] == other[1:]


@lru_cache(4096)
def _change(old: Pen | None, new: Pen) -> tuple[str, Pen]:
    """The shortest codes that turn a pen into another, and what it is then: its text colour stays where the
    other's does not show."""
    ways = [_turn([""], Pen("39", "49", frozenset()), new)]  # "" as 0, a reset
    if old is not None:
        off = {_OFF[code] for code in old.attributes - new.attributes}
        kept = frozenset(code for code in old.attributes & new.attributes if _OFF[code] not in off)
        ways.append(_turn(sorted(off), old._replace(attributes=kept), new))
    return min(ways, key=lambda way: len(way[0]))


def _turn(first: list[str], old: Pen, new: Pen) -> tuple[str, Pen]:
    """The codes that come first and make the pen the old one, and what makes that the new one."""
    codes = first + sorted(new.attributes - old.attributes)
    codes += [new.text] * (new.text not in ("", old.text)) + [new.ground] * (new.ground != old.ground)
    return f"\x1b[{';'.join(codes)}m", Pen(new.text or old.text, new.ground, new.attributes)


def _at(y: int, x: int) -> str:
    return f"\x1b[{y + 1};{x + 1}H" if x else f"\x1b[{y + 1}H"


def _width(row: dict[int, Cell], x: int) -> int:
    return 2 if row.get(x + 1, (" ",))[0] == "" else 1


@lru_cache(1024)
def _is_doubtful(text: str) -> bool:
    """May a terminal give this another width than we do?"""
    return not text.isascii() and (
        _doubtful.search(text) is not None or any(unicodedata.category(c) == "Mc" for c in text[1:])
    )


@lru_cache(1024)
def _most(text: str) -> int:
    """How many cells a doubtful character may cover where a terminal takes its parts one by one."""
    return 2 * len(text) if _is_doubtful(text) else 0
