"""A screen's frames: one period apart, and one that took long does not put off the next."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual._context import active_app
from textual.app import App

from tfm.tui import frame_timer
from tfm.tui.frame_timer import FrameTimer
from tfm.tui.screens.stages import StagesScreen
from tfm.tui.screens.translate import TranslateScreen

from .driving import NO_ENGINE, driven, until

PERIOD = 1 / 64


class Clock:
    """A clock that only sleeping and painting move."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(scope="module")
def clock() -> Iterator[Clock]:
    ours = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frame_timer, "time", ours)
        patch.setattr(frame_timer, "asyncio", ours)
        yield ours


async def frames(clock: Clock, costs: list[float]) -> list[float]:
    """When each frame began, where painting takes so long each time and another is always wanted."""
    app = App[None]()
    active_app.set(app)
    began: list[float] = []

    def paint() -> None:
        began.append(clock.now)
        clock.now += costs[len(began) - 1]
        app._exit = len(began) == len(costs)

    timer = FrameTimer(app, PERIOD, callback=paint)
    await timer._run()
    return began


@given(st.lists(st.floats(0, 4 * PERIOD), min_size=2, max_size=20))
def test_a_frame_is_due_a_period_after_the_last_began_and_no_later(clock: Clock, costs: list[float]) -> None:
    began = asyncio.run(frames(clock, costs))
    gaps = [after - before for before, after in itertools.pairwise(began)]
    assert gaps == pytest.approx([max(PERIOD, cost) for cost in costs[:-1]])


def test_nothing_is_painted_while_nothing_is_wanted() -> None:
    """On the real clock: paused it does not tick, and the first tick after a rest comes at once."""

    async def ticks() -> tuple[int, int]:
        app = App[None]()
        active_app.set(app)
        seen: list[int] = []
        painted = asyncio.Event()

        def paint() -> None:
            seen.append(1)
            timer.pause()
            painted.set()

        timer = FrameTimer(app, PERIOD, callback=paint, pause=True)
        timer._start()
        await asyncio.sleep(4 * PERIOD)
        before = len(seen)
        timer.resume()
        await asyncio.wait_for(painted.wait(), 5)
        await asyncio.sleep(4 * PERIOD)
        timer.stop()
        return before, len(seen)

    assert asyncio.run(ticks()) == (0, 1)


async def test_modes_and_what_lies_over_them_are_painted_by_it() -> None:
    async with driven(TranslateScreen, NO_ENGINE) as (screen, pilot):
        assert isinstance(screen._update_timer, FrameTimer)
        await pilot.press("tab", "o")
        await until(pilot, lambda: isinstance(pilot.app.screen, StagesScreen), "the list of stages")
        assert isinstance(pilot.app.screen._update_timer, FrameTimer)
        assert not [timer for timer in (*screen._timers, *pilot.app.screen._timers) if "update" in timer.name]
