"""The panel of a run: curves, figures, samples; other runs over it; steering."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from rich.text import Text
from textual import work
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.timer import Timer
from textual.widget import Widget

from tfm.core.engine import protocol
from tfm.tui import curves, keymap
from tfm.tui.client import EngineLost, EngineProblem
from tfm.tui.curve_export import to_csv, to_svg, write_files
from tfm.tui.machine import Machine
from tfm.tui.paths import PathSuggester
from tfm.tui.run_record import RunRecord
from tfm.tui.safe_text import safe_text
from tfm.tui.screens.checklist import Checklist
from tfm.tui.screens.prompt import Prompt
from tfm.tui.screens.train_curves import CurveRoom
from tfm.tui.widgets.lines import keys_of, name_box
from tfm.tui.widgets.run_panel import Legend, RunFigures, RunHead
from tfm.tui.widgets.samples import Samples

if TYPE_CHECKING:
    from tfm.tui.app import TfmApp
    from tfm.tui.screens.base import ModeScreen

REDRAW = 0.5  # seconds between redraws of the panel, at the most often
LOOK_EVERY = 2.0  # seconds between looks at the machine
_MODE_OF = {"translation": "translate", "causal-lm": "chat", "masked-lm": "fill"}


class WatchRoom(CurveRoom, can_focus=True):
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.RUN, *keymap.STEER]
    KEYS_TITLE = "In the panel of a run"  # in the help

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine()
        self._dirty = False
        self._looker: Timer | None = None

    # ------------------------------------------------------------------ layout
    def compose(self) -> Iterable[Widget]:
        yield RunHead()
        yield from self.plots()
        yield Legend()
        yield RunFigures()
        with VerticalScroll(id="samples", classes="box", can_focus=False):
            yield Samples()

    def on_mount(self) -> None:
        self.display = False
        self.recall()
        self.set_interval(REDRAW, self.redraw)
        self._looker = self.set_interval(LOOK_EVERY, self._look)

    def on_resize(self) -> None:
        self.changed()

    def listen(self, yes: bool) -> None:
        """Whether somebody looks at this screen. The events are followed all the same."""
        self._dirty = True
        if self._looker is not None:
            (self._looker.resume if yes else self._looker.pause)()

    @property
    def record(self) -> RunRecord | None:
        return self.records[0] if self.records else None

    # ------------------------------------------------------------------ watching
    def watch_run(self, run: str, over: tuple[str, ...] = ()) -> None:
        """Show a run's panel and follow the run, and others over it, from their first event on."""
        self.leave()
        self.records = [RunRecord(name) for name in (run, *over)]
        self.view = curves.whole(self.view)
        self.machine = Machine()
        figures = self.query_one(RunFigures)
        figures.machine = self.machine
        for widget in (self.query_one(RunHead), figures, self.query_one(Samples)):
            widget.record = self.record
        self.query_one(Samples).back = 0
        for record in self.records:
            self.follow(record)
        self._look()
        self.changed()
        self.call_after_refresh(self.redraw)

    def leave(self) -> None:
        """Watch nothing any more."""
        for record in self.records:
            self.workers.cancel_group(self, f"follow {record.run}")
        self.records, self.full = [], ""

    def follow(self, record: RunRecord) -> None:
        self.run_worker(self._follow(record), group=f"follow {record.run}", exclusive=True)

    async def _follow(self, record: RunRecord) -> None:
        """Read the run's events until nobody trains it any more; a lost engine is started again."""
        while True:
            try:
                message = protocol.RunFollow(id=0, run=record.run, after_seq=record.seq)
                stream = await self.client.request(message)
                try:
                    async for event in stream:
                        if isinstance(event, protocol.RunEvents):
                            record.take(event.lines, event.bad_lines)
                            self.changed()
                finally:
                    if not stream.ended:
                        await asyncio.shield(stream.cancel())
                if record.ended is None:
                    record.lose("Its trainer is gone without a word: Space goes on from what it saved.")
                self.changed()
                return
            except EngineLost as problem:
                self.say(record, f"{problem} Following goes on by itself.", "warning")
                await self.client.rest()
            except EngineProblem as problem:
                record.lose(str(problem))
                self.changed()
                return

    @work(exclusive=True, group="look")
    async def _look(self) -> None:
        """What the run takes of the machine."""
        record = self.record
        if record is None or not record.going_on or self.client.welcome is None:
            return
        box: protocol.Box | None = None
        trainer: protocol.TrainerStats | None = None
        try:
            async for event in await self.client.request(protocol.RunStats(id=0, run=record.run)):
                if isinstance(event, protocol.Box):
                    box = event
                elif isinstance(event, protocol.TrainerStats):
                    trainer = event
        except EngineProblem:  # whoever follows the run says so
            return
        self.machine.take(box, trainer)
        if self.screen.is_current:
            self.query_one(RunFigures).repaint()

    def changed(self) -> None:
        self._dirty = True

    def redraw(self) -> None:
        """What changed since the last time; never more often than REDRAW says."""
        if not self._dirty or not self.records or not self.screen.is_current:
            return
        self._dirty = False
        self.query_one(RunHead).repaint()
        self.query_one(RunFigures).repaint()
        legend = self.query_one(Legend)
        legend.records, legend.view = tuple(self.records), self.view
        legend.display = len(self.records) > 1 or bool(self.view.described())
        legend.repaint()
        self._draw_samples()
        self.draw_curves()
        cast("ModeScreen", self.screen).refresh_keys()

    def _draw_samples(self) -> None:
        samples = self.query_one(Samples)
        samples.repaint()
        shown = f"Samples, step {samples.step:,}" if samples.step is not None else "Samples"
        record = self.record
        several = record is not None and len(record.samples) > 1
        keys = keys_of(self).told("{train.older} older  {train.newer} newer") if several else ""
        name_box(self.query_one("#samples"), title=shown, subtitle=keys)

    @work(exclusive=True, group="overlay")
    async def action_overlay(self) -> None:
        """Which other runs are drawn over this one."""
        record = self.record
        if record is None:
            return
        try:
            listed = (await self.client.ask(protocol.RunsList(id=0), protocol.RunsListed)).runs
        except EngineProblem as problem:
            self.say(record, str(problem), "warning")
            return
        others = [
            (info.run, f"{info.run}  {info.state} {info.step:,}") for info in listed if info.run != record.run
        ]
        if not others:
            self.say(record, "There is no other run on the engine's machine.", "warning")
            return
        now = [other.run for other in self.records[1:]]
        most = curves.MOST_RUNS - 1
        ticked = await self.app.push_screen_wait(Checklist("Runs over this one", others, now, most))
        if ticked is not None and self.record is record:
            self._put_over(ticked)

    def _put_over(self, runs: tuple[str, ...]) -> None:
        kept = {other.run: other for other in self.records[1:]}
        for name in kept.keys() - set(runs):
            self.workers.cancel_group(self, f"follow {name}")
        self.records[1:] = [kept.get(name) or RunRecord(name) for name in runs]
        for other in self.records[1:]:
            if other.run not in kept:
                self.follow(other)
        self.look_at(self.view)

    # ------------------------------------------------------------------ samples
    def action_sample(self, by: int) -> None:
        if self.record is not None and self.record.samples:
            samples = self.query_one(Samples)
            samples.back = min(max(samples.back - by, 0), len(self.record.samples) - 1)
            self._draw_samples()

    def action_scroll_text(self, by: int) -> None:
        self.query_one("#samples").scroll_relative(y=by, animate=False)

    # ------------------------------------------------------------------ beyond the panel
    def action_export(self) -> None:
        record = self.record
        if record is None:
            return

        async def write(text: str) -> str:
            stem = Path(text.strip()).expanduser()
            kinds = curves.available(self.records)
            table = to_csv(self.records, kinds)
            picture = to_svg(self.records, self.shown_curves(), self.view)
            return await asyncio.to_thread(write_files, stem, {".csv": table, ".svg": picture})

        def done(written: str | None) -> None:
            if written is not None:
                self.say(record, f"written: {written}")

        hint = "Two files with this beginning: every point as CSV, and these curves as SVG."
        start = str(Path.cwd() / Path(record.run).name)
        prompt = Prompt("Export the curves", text=start, hint=hint, act=write, paths=PathSuggester())
        self.app.push_screen(prompt, done)

    @work(exclusive=True, group="talk")
    async def action_talk(self) -> None:
        """The mode for what this run trains, with its newest checkpoint; the run goes on."""
        record = self.record
        if record is None:
            return
        if not record.has_checkpoint:
            self.say(record, "It has no checkpoint yet: S saves one now.", "warning")
            return
        app = cast("TfmApp", self.app)
        mode = _MODE_OF.get(record.started.objective if record.started else "", "translate")
        self.say(record, "loading its newest checkpoint")
        try:
            try:
                loaded = await app.sessions[mode].choose(record.run)
            except EngineLost:
                raise
            except EngineProblem:  # a model of plain text does not chat; the lab takes every model
                loaded, mode = await app.sessions["lab"].choose(record.run), "lab"
        except EngineProblem as problem:
            self.say(record, str(problem), "warning")
            return
        self.say(record, f"{loaded.info.name} is in {mode}")
        if self.screen.is_current:
            app.action_mode(mode)

    def action_detach(self) -> None:
        record = self.record
        if record is not None:
            message = f"{record.run} is {record.state}. See it again: tfm-tui attach {record.run}"
            self.app.exit(0, message=Text(safe_text(message)))

    def keys_now(self) -> tuple[list[str], dict[str, str]]:
        record = self.record
        if record is None:
            return [], {}
        labels = {"train.pause": "go on" if record.paused or not record.going_on else "pause"}
        if record.going_on:
            going = ["train.pause", "train.save", "train.rate", "train.evaluate", "train.talk", "train.stop"]
        else:
            again = ["train.pause"] if record.state in ("stopped", "failed", "lost") else []
            going = [*again, "train.talk", "train.fork", "curves.export"]
        views = ["curves.choose", "curves.runs", "curves.axis", "curves.closer", "train.bookmark"]
        return ["train.back", *going, *views, "train.detach"], labels
