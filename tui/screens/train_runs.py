"""The list of runs: choose one, mark several, start a new one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, cast

from textual import work
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.geometry import Region
from textual.message import Message
from textual.timer import Timer
from textual.widget import Widget

from tfm.core.engine import protocol
from tfm.tui import keymap
from tfm.tui.client import EngineProblem
from tfm.tui.curves import MOST_RUNS
from tfm.tui.paths import PathSuggester
from tfm.tui.screens.prompt import Prompt
from tfm.tui.starting import EXAMPLE, USAGE, run_start
from tfm.tui.widgets.lines import name_box
from tfm.tui.widgets.run_list import RunList

if TYPE_CHECKING:
    from tfm.tui.screens.base import ModeScreen

LIST_EVERY = 5.0  # seconds between looks at the list of runs


class RunsRoom(VerticalScroll, can_focus=True):
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.RUNS]
    KEYS_TITLE = "In the list of runs"  # in the help

    class Watch(Message):
        """A run shall be watched, with others drawn over it."""

        def __init__(self, run: str, over: tuple[str, ...]) -> None:
            super().__init__()
            self.run, self.over = run, over

    def __init__(self) -> None:
        super().__init__(id="runs", classes="box")
        self._lister: Timer | None = None

    def compose(self) -> Iterable[Widget]:
        yield RunList()

    def on_mount(self) -> None:
        name_box(self, title="Runs")
        self._lister = self.set_interval(LIST_EVERY, self._read_again)

    @property
    def runs(self) -> RunList:
        return self.query_one(RunList)

    def listen(self, yes: bool) -> None:
        """Whether the list is kept up to date."""
        if self._lister is not None:
            (self._lister.resume if yes else self._lister.pause)()

    def _read_again(self) -> None:
        """A machine that is lost is looked for by the client, at its own pace."""
        client = cast("ModeScreen", self.screen).session.client
        if client.box is None or client.welcome is not None:
            self.read()

    @work(exclusive=True, group="list")
    async def read(self) -> None:
        """Ask the engine which runs there are."""
        if not self.display:
            return
        mode, runs = cast("ModeScreen", self.screen), self.runs
        chosen = runs.runs[runs.chosen].run if runs.runs else None
        try:
            answer = await mode.session.client.ask(protocol.RunsList(id=0), protocol.RunsListed)
        except EngineProblem as problem:
            runs.message, runs.example = str(problem), ""
        else:
            runs.runs = tuple(sorted(answer.runs, key=lambda run: -run.started))
            names = [run.run for run in runs.runs]
            runs.chosen = names.index(chosen) if chosen in names else 0
            runs.marked = tuple(name for name in runs.marked if name in names)
            runs.message = mode.told("No run yet. {train.new} starts one from a config file, such as this:")
            runs.example = EXAMPLE
        runs.repaint()
        mode.refresh_keys()

    def action_move(self, by: int) -> None:
        runs = self.runs
        if runs.runs:
            runs.chosen = min(max(runs.chosen + by, 0), len(runs.runs) - 1)
            runs.repaint()
            self.scroll_to_region(Region(0, runs.chosen + 1, 1, 1), animate=False)

    def action_mark(self) -> None:
        runs = self.runs
        if not runs.runs:
            return
        name = runs.runs[runs.chosen].run
        if name in runs.marked:
            runs.marked = tuple(other for other in runs.marked if other != name)
        elif len(runs.marked) >= MOST_RUNS:
            self.notify(f"At most {MOST_RUNS} runs in one picture: take a mark away first.", markup=False)
        else:
            runs.marked = (*runs.marked, name)
        name_box(self, subtitle=f"{len(runs.marked)} marked" if runs.marked else "")
        runs.repaint()

    def action_open(self) -> None:
        runs = self.runs
        if runs.runs:
            name = runs.runs[runs.chosen].run
            others = tuple(other for other in runs.marked if other != name)[: MOST_RUNS - 1]
            self.post_message(self.Watch(name, others))

    # ------------------------------------------------------------------ starting
    @work(exclusive=True, group="start")
    async def action_new_run(self) -> None:
        """Ask for the config until a run starts or the person goes back; what is wrong shows in place."""
        client = cast("ModeScreen", self.screen).session.client
        prompt = Prompt(
            "New run: path of its config (TOML)",
            hint=f"On the engine's machine, where it goes on without this terminal. Also: {USAGE}",
            act=self._start_run,
            paths=PathSuggester(".toml") if client.box is None else None,
        )
        run = await self.app.push_screen_wait(prompt)
        if run is not None:
            self.post_message(self.Watch(run, ()))

    async def _start_run(self, config: str) -> str:
        """The new run's id. Raises ValueError with the sentence that says what is wrong."""
        message = run_start(config)
        try:
            client = cast("ModeScreen", self.screen).session.client
            return (await client.ask(message, protocol.RunStarting)).run
        except EngineProblem as problem:
            raise ValueError(str(problem)) from None

    def keys_now(self) -> list[str]:
        choose = ["train.open", "train.up", "train.down", "train.mark"] if self.runs.runs else []
        return [*choose, "train.new", "mode.translate", "app.leave"]
