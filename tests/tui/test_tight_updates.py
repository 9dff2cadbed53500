"""Only differences are sent, and the terminal shows what it would show if everything were."""

from __future__ import annotations

import unicodedata

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

from tfm.tui.tight_updates import Shown, TightUpdate

COLUMNS, ROWS = 16, 3
CONSOLE = Console(color_system="truecolor", force_terminal=True)
STYLES = [
    Style.parse(text)
    for text in ("white on black", "red on black", "bold red on black", "underline white on black",
                 "white on blue", "reverse white on black", "not bold white on black",
                 "bold strike red on black", "strike red on black", "bold italic white on blue")
]  # fmt: skip
PLAIN = st.sampled_from([*"ab x ", "界", "한", "é", "e\u0301", "│"])
DOUBTFUL = ["👩‍👧", "🇩🇪", "👍🏽", "❤️", "🇩", "1️⃣", "\u1112\u1161\u11ab", "\u0915\u093f"]
ANY = st.one_of(PLAIN, st.sampled_from(DOUBTFUL))


def rows(alphabet: st.SearchStrategy[str]) -> st.SearchStrategy[list[list[tuple[str, int]]]]:
    span = st.tuples(st.lists(alphabet, max_size=5).map("".join), st.integers(0, len(STYLES) - 1))
    return st.lists(st.lists(span, max_size=5), min_size=ROWS, max_size=ROWS)


def strips_of(picture: list[list[tuple[str, int]]]) -> list[Strip]:
    lines = [Strip([Segment(text, STYLES[style]) for text, style in row if text]) for row in picture]
    return [line.adjust_cell_length(COLUMNS, STYLES[0]) for line in lines]


def whole(strips: list[Strip]) -> LayoutUpdate:
    return LayoutUpdate([[strip] for strip in strips], Region(0, 0, COLUMNS, ROWS))


def render(shown: Shown, update: LayoutUpdate | ChopsUpdate) -> str:
    tight = shown.tight(update)
    assert isinstance(tight, TightUpdate)
    return tight.render_segments(CONSOLE)


def a_terminal() -> tuple[pyte.Screen, pyte.Stream]:
    """Without automatic wrapping, as the driver sets it."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.Stream(screen)
    stream.feed("\x1b[?7l")
    return screen, stream


def lines(screen: pyte.Screen) -> list[str]:
    return [line.rstrip() for line in screen.display]


def composed(strip: Strip) -> str:
    """pyte keeps accents composed."""
    return composed_text(strip.text.rstrip())


def composed_text(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def looks(screen: pyte.Screen) -> list[list[object]]:
    """Every cell; the colour of a blank's text does not show."""

    def look(cell: pyte.screens.Char) -> object:
        return (
            cell if cell.data != " " or cell.underscore or cell.reverse else cell._replace(fg="", bold=False)
        )

    return [[look(screen.buffer[y][x]) for x in range(COLUMNS)] for y in range(ROWS)]


@settings(deadline=None, max_examples=40)
@given(st.lists(rows(PLAIN), min_size=1, max_size=5))
def test_the_terminal_ends_up_as_if_everything_had_been_sent(
    pictures: list[list[list[tuple[str, int]]]],
) -> None:
    shown = Shown()
    terminal, stream = a_terminal()
    for picture in pictures:
        stream.feed(render(shown, whole(strips_of(picture))))
        fresh, its_stream = a_terminal()
        its_stream.feed(whole(strips_of(picture)).render_segments(CONSOLE))
        assert looks(terminal) == looks(fresh)
        assert lines(terminal) == [composed(strip) for strip in strips_of(picture)]
        assert render(shown, whole(strips_of(picture))) == ""


@settings(deadline=None, max_examples=40)
@given(
    rows(PLAIN), rows(PLAIN), st.integers(0, COLUMNS - 1), st.integers(1, COLUMNS), st.integers(0, ROWS - 1)
)
def test_a_part_changes_that_part_only(
    before: list[list[tuple[str, int]]], after: list[list[tuple[str, int]]], x: int, last: int, y: int
) -> None:
    if x >= last:
        return
    old, new = strips_of(before), strips_of(after)
    mixed = [Strip.join([old[y].crop(0, x), new[y].crop(x, last), old[y].crop(last, COLUMNS)])]
    expected = [*old[:y], *mixed, *old[y + 1 :]]
    shown = Shown()
    terminal, stream = a_terminal()
    stream.feed(render(shown, whole(old)))
    if old[y].text != Strip.join([old[y].crop(0, x), old[y].crop(x, last), old[y].crop(last, COLUMNS)]).text:
        return  # the part would begin or end within a wide character
    edges = (new[y].crop(x, last), old[y].crop(last, COLUMNS))
    if any(unicodedata.combining(edge.text[:1] or " ") for edge in edges):
        return  # ... or between a letter and its accent
    chops = [
        {0: strip} for strip in (*old[:y], Strip.join([old[y].crop(0, x), new[y].crop(x)]), *old[y + 1 :])
    ]
    stream.feed(render(shown, ChopsUpdate(chops, [(y, x, last)], [[COLUMNS]] * ROWS)))
    assert lines(terminal) == [composed(strip) for strip in expected]


@settings(deadline=None, max_examples=40)
@given(st.lists(rows(ANY), min_size=1, max_size=4))
def test_characters_of_doubtful_width_do_not_move_what_is_beside_them(
    pictures: list[list[list[tuple[str, int]]]],
) -> None:
    """pyte takes a sequence's parts one by one, as many terminals do. Plain characters must stand where we
    count them, whatever it makes of the others."""
    shown = Shown()
    terminal, stream = a_terminal()
    for picture in pictures:
        strips = strips_of(picture)
        stream.feed(render(shown, whole(strips)))
        for y, strip in enumerate(strips):
            for x, character in plain_cells(strip.text):
                assert terminal.buffer[y][x].data == composed_text(character), strip.text


def plain_cells(text: str) -> list[tuple[int, str]]:
    """Columns of the characters whose width nobody doubts."""
    from tfm.tui.tight_updates import _is_doubtful
    from tfm.tui.widgets.cells import graphemes

    found, x = [], 0
    for character, wide in graphemes(text):
        if len(character) == 1 and wide and not _is_doubtful(character):
            found.append((x, character))
        x += wide
    return found


def test_a_token_is_a_jump_and_its_letters() -> None:
    shown = Shown()
    first, second = [("Ein", 0)], [("Ein Mann", 0)]
    render(shown, whole(strips_of([first, [], []])))
    assert render(shown, whole(strips_of([second, [], []]))) == "\x1b[1;5HMann"


def test_another_size_is_written_in_full() -> None:
    shown = Shown()
    strips = strips_of([[("a", 0)], [], []])
    render(shown, whole(strips))
    wider = [strip.adjust_cell_length(COLUMNS + 1, STYLES[0]) for strip in strips]
    text = render(shown, LayoutUpdate([[strip] for strip in wider], Region(0, 0, COLUMNS + 1, ROWS)))
    assert text.count(" ") >= COLUMNS * ROWS


@pytest.mark.parametrize("system", ["standard", "256", "truecolor"])
def test_colours_are_those_that_the_terminal_has(system: str) -> None:
    console = Console(color_system=system, force_terminal=True)  # type: ignore[arg-type]
    tight = Shown().tight(whole([Strip([Segment("x" * COLUMNS, Style.parse("#ff0000 on #0000ff"))])] * ROWS))
    assert isinstance(tight, TightUpdate)
    sent = tight.render_segments(console)
    assert {"standard": "31;44", "256": "38;5;", "truecolor": "38;2;255;0;0"}[system] in sent


def test_an_attribute_that_ends_takes_no_colour_along() -> None:
    text = [Segment("Ein", Style.parse("bold strike #ff0000 on #0000ff"))]
    text += [Segment("Mann".ljust(COLUMNS - 3), Style.parse("strike #ff0000 on #0000ff"))]
    sent = render(Shown(), whole([Strip(text)] * ROWS))
    assert "Ein\x1b[22mMann" in sent
