"""Driving the app through its keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from textual._compositor import CompositorUpdate
from textual.app import App
from textual.events import Key
from textual.pilot import Pilot

from tfm.tui.app import TfmApp
from tfm.tui.screens.base import ModeScreen

HOSTILE = "\x1b]52;c;aGFja2Vk\x07\x1bc\x9b31m [@click=app.leave]leave[/] \u202eevil [b]x[/b] \u2066\u200b"
NO_ENGINE = ("/no-such-engine",)
Screen = TypeVar("Screen", bound=ModeScreen)


@asynccontextmanager
async def driven(
    kind: type[Screen], model: Path | None, size: tuple[int, int] = (80, 24)
) -> AsyncIterator[tuple[Screen, Pilot[int]]]:
    """The app in one mode; without a model it has no engine either, and starts at once."""
    app = TfmApp(model=str(model), mode=kind.MODE) if model else TfmApp(NO_ENGINE, mode=kind.MODE)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: isinstance(app.screen, kind), "the mode")
        screen = app.screen
        assert isinstance(screen, kind)
        yield screen, pilot


async def until(pilot: Pilot[int], ready: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Wait without the pilot's own pauses, which last until nothing happens any more."""
    for _ in range(int(seconds * 100)):
        if ready():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"waited {seconds:.0f} s for {what}")


def press_now(pilot: Pilot[int], *keys: str) -> None:
    """Press keys in the middle of things; they are handled when the app gets to it."""
    for key in keys:
        pilot.app.post_message(Key(key, {"enter": "\r", "escape": "\x1b"}.get(key)))


def painted(app: App[int]) -> str:
    """Everything on the screen, as it goes to the terminal."""
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


def sent(app: TfmApp, update: object) -> str:
    """What the terminal is sent for an update of the compositor."""
    tight = app.shown.tight(update)  # type: ignore[arg-type]
    return tight.render_segments(app.console) if isinstance(tight, CompositorUpdate) else ""
