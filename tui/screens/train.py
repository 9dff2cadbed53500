"""Train: the runs of the engine's machine, and one or several of them watched as they learn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.binding import BindingType
from textual.widget import Widget

from tfm.tui import keymap
from tfm.tui.run_record import RunRecord
from tfm.tui.screens.base import ModeScreen
from tfm.tui.screens.train_runs import RunsRoom
from tfm.tui.screens.train_watch import WatchRoom
from tfm.tui.widgets.run_list import RunList

if TYPE_CHECKING:
    from tfm.tui.app import TfmApp


class TrainScreen(ModeScreen):
    """Two rooms, one of them shown: the list of runs, and the panel of a run."""

    MODE = "train"
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.TRAIN]
    AUTO_FOCUS = "#runs"
    VERTICAL_BREAKPOINTS = [(0, "-tiny"), (18, "-short"), (22, "-medium"), (40, "-tall")]

    def body(self) -> Iterable[Widget]:
        yield RunsRoom()
        yield WatchRoom()

    def on_mount(self) -> None:
        first = cast("TfmApp", self.app).first_run
        if first:
            self.watch_run(first)
        else:
            self.list_room.read()

    @property
    def list_room(self) -> RunsRoom:
        return self.query_one(RunsRoom)

    @property
    def watch_room(self) -> WatchRoom:
        return self.query_one(WatchRoom)

    @property
    def runs(self) -> RunList:
        return self.list_room.runs

    @property
    def record(self) -> RunRecord | None:
        """The run that is watched; None while the list is shown."""
        return self.watch_room.record

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        self.list_room.listen(True)
        self.watch_room.listen(True)

    def on_screen_suspend(self) -> None:
        self.list_room.listen(False)
        self.watch_room.listen(False)

    # ------------------------------------------------------------------ from room to room
    @on(RunsRoom.Watch)
    def _watch(self, event: RunsRoom.Watch) -> None:
        self.watch_run(event.run, event.over)

    def watch_run(self, run: str, over: tuple[str, ...] = ()) -> None:
        self.list_room.display = False
        self.watch_room.display = True
        self.watch_room.watch_run(run, over)
        self.watch_room.focus()

    def action_back(self) -> None:
        if self.record is None:
            return
        self.watch_room.leave()
        self.watch_room.display = False
        self.list_room.display = True
        self.list_room.focus()
        self.list_room.read()
        self.refresh_keys()

    def action_refresh_runs(self) -> None:
        self.list_room.read()

    def keys_now(self) -> tuple[list[str], dict[str, str]]:
        if self.record is None:
            return self.list_room.keys_now(), {}
        return self.watch_room.keys_now()
