"""A streamed token costs the terminal little more than itself."""

from __future__ import annotations

import pyte
from rich.segment import Segment
from textual._ansi_sequences import SYNC_END, SYNC_START
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

from tfm.tui.app import TfmApp
from tfm.tui.screens.translate import TranslateScreen
from tfm.tui.tight_updates import TightUpdate
from tfm.tui.widgets.painted import MARGIN

from .driving import sent

TOKENS = [" Mann", " in", " einem", " bla", "uen", " Hemd", " steht", " auf", " der", " Leiter"] * 12


async def test_a_token_repaints_only_its_own_cells() -> None:
    app = TfmApp(["/no-such-engine"])
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause(0.3)
        screen = app.screen
        assert isinstance(screen, TranslateScreen)
        costs: list[int] = []
        sent(app, screen._compositor.render_update(full=True))
        partial = screen._compositor.render_partial_update

        def counted() -> ChopsUpdate | None:
            update = partial()
            if update is not None:
                costs.append(len(sent(app, update).encode()))
            return update

        screen.target.begin(1)
        await pilot.pause(0.2)
        screen._compositor.render_partial_update = counted  # type: ignore[method-assign]
        in_view = TOKENS[: len(TOKENS) // 3]
        for token in in_view:  # one a frame, the dearest case
            screen.target.append(0, token)
            await pilot.pause(0.03)
        assert len(costs) <= len(in_view) + 5
        assert sum(costs) / len(in_view) < 35
        assert " ".join(row.strip() for row in _rows(screen)) == "".join(in_view).strip()


def _rows(screen: TranslateScreen) -> list[str]:
    """What the target's box shows, read from what is painted."""
    region = screen.target.content_region
    strips = screen._compositor.render_strips()[region.y : region.bottom]
    rows = [strip.crop(region.x, region.right).text.replace("▌", "").strip() for strip in strips]
    return [row for row in rows if row]


async def test_painted_cells_are_the_text_whatever_arrives() -> None:
    """Minimal repainting must never leave old cells behind."""
    app = TfmApp(["/no-such-engine"])
    async with app.run_test(size=(60, 24)) as pilot:
        await pilot.pause(0.3)
        screen = app.screen
        assert isinstance(screen, TranslateScreen)
        target = screen.target
        target.begin(3)
        for token in ("中文", "字 ab", "cde\u0301", "👩‍", "👧 x", " lang" * 6, "\nneu", " e\u0301"):
            for lane in range(3):
                target.append(lane, token)
            await pilot.pause(0.03)
        target.replace(1, "kurz")
        target.finish_all()
        await pilot.pause(0.1)
        assert_painted(screen)


async def test_text_that_grows_between_painting_and_sending_is_not_lost() -> None:
    """Regions are fixed when a frame is painted; what comes until it is sent must wait for the next."""
    app = TfmApp(["/no-such-engine"])
    async with app.run_test(size=(60, 24)) as pilot:
        await pilot.pause(0.3)
        screen = app.screen
        assert isinstance(screen, TranslateScreen)
        target = screen.target
        terminal = pyte.Screen(60, 24)
        feed = pyte.Stream(terminal).feed
        target.begin(1)
        await pilot.pause(0.2)
        feed(sent(app, app.screen._compositor.render_update(full=True)))
        for n in range(60):
            target.append(0, f" w{n}")
            target._paint()  # a frame: regions are named
            target.append(0, f"x{n}")  # and the text goes on before they are sent
            screen._compositor.update_widgets({target})
            feed(sent(app, screen._compositor.render_partial_update()))
        target._paint()
        screen._compositor.update_widgets({target})
        feed(sent(app, screen._compositor.render_partial_update()))
        region = target.content_region
        shown = [line[region.x + MARGIN : region.right].rstrip() for line in terminal.display]
        for y in range(min(target.n_rows, region.height)):
            row = "".join(text for text, _ in target.row(y + target.scroll_offset.y))
            assert shown[region.y + y] == row.rstrip()


def assert_painted(screen: TranslateScreen) -> None:
    """Every cell on the screen is what the widget says that it is."""
    target = screen.target
    strips = screen._compositor.render_strips()
    region = target.content_region
    for y in range(min(target.n_rows, region.height)):
        text = "".join(text for text, _ in target.row(y + target.scroll_offset.y)).rstrip()
        left = region.x + MARGIN
        assert strips[region.y + y].crop(left, region.right).text.rstrip() == text


async def test_only_a_frame_that_could_be_seen_half_done_is_bracketed() -> None:
    app = TfmApp(["/no-such-engine"])
    async with app.run_test(size=(80, 24)):
        app._sync_available = True
        written: list[str] = []
        assert app._driver is not None
        app._driver.write = written.append  # type: ignore[method-assign]
        for columns, brackets in ((5, []), (400, [SYNC_START, SYNC_END])):
            written.clear()
            strip = Strip([Segment("x" * columns)], columns)
            app._on_its_way = app.shown.tight(LayoutUpdate([[strip]], Region(0, 0, columns, 1)))
            app._begin_update()
            app._end_update()
            assert written == brackets
            assert isinstance(app._on_its_way, TightUpdate)
            assert "x" * columns in app._on_its_way.render_segments(app.console)  # and is still to be written
