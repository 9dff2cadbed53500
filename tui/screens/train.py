"""Train: the runs of the engine's machine, and one of them watched as it learns."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, cast

from textual import work
from textual.binding import BindingType
from textual.containers import Grid, Vertical, VerticalScroll
from textual.geometry import Region
from textual.timer import Timer
from textual.widget import Widget

from tfm.core.engine import protocol
from tfm.tui import keymap
from tfm.tui.client import EngineLost, EngineProblem
from tfm.tui.run_record import Point, RunRecord, downsample
from tfm.tui.screens.base import ModeScreen
from tfm.tui.screens.prompt import Prompt
from tfm.tui.widgets.cells import Span
from tfm.tui.widgets.curve import Curve
from tfm.tui.widgets.lines import name_box
from tfm.tui.widgets.run_panel import RunFigures, RunHead, RunList, Samples

if TYPE_CHECKING:
    from tfm.tui.app import TfmApp

REDRAW = 0.5  # seconds between redraws of the panel, at the most often
LIST_EVERY = 5.0  # seconds between looks at the list of runs
RECONNECT = 2.0  # seconds to wait before a lost engine is started again to go on following


class TrainScreen(ModeScreen):
    MODE = "train"
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.TRAIN]
    VERTICAL_BREAKPOINTS = [(0, "-short"), (22, "-medium"), (40, "-tall")]

    def __init__(self) -> None:
        super().__init__()
        self.record: RunRecord | None = None
        self._dirty = False
        self._lister: Timer | None = None

    # ------------------------------------------------------------------ layout
    def body(self) -> Iterable[Widget]:
        with VerticalScroll(id="runs", classes="box", can_focus=True) as box:
            name_box(box, title="Runs")
            yield RunList()
        with Vertical(id="run"):
            yield RunHead()
            with Grid(id="curves"):
                yield Curve("loss", id="loss", settle=True)
                yield Curve("validation BLEU", id="bleu")
                yield Curve("accuracy", id="accuracy")
                yield Curve("learning rate", id="learning_rate")
            yield RunFigures()
            with Vertical(id="samples", classes="box"):
                yield Samples()

    def on_mount(self) -> None:
        self.query_one("#run").display = False
        self.set_interval(REDRAW, self._redraw)
        self._lister = self.set_interval(LIST_EVERY, self._list_runs)
        self._list_runs()
        first = cast("TfmApp", self.app).first_run
        if first:
            self.watch_run(first)

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        self._dirty = True
        if self._lister is not None:
            self._lister.resume()

    def on_screen_suspend(self) -> None:
        if self._lister is not None:
            self._lister.pause()

    # ------------------------------------------------------------------ the list
    @property
    def runs(self) -> RunList:
        return self.query_one(RunList)

    @work(exclusive=True, group="list")
    async def _list_runs(self) -> None:
        if self.record is not None:
            return
        runs = self.runs
        chosen = runs.runs[runs.chosen].run if runs.runs else None
        try:
            answer = await self.session.client.ask(protocol.RunsList(id=0), protocol.RunsListed)
        except EngineProblem as problem:
            runs.message = str(problem)
        else:
            runs.runs = tuple(sorted(answer.runs, key=lambda run: -run.started))
            names = [run.run for run in runs.runs]
            runs.chosen = names.index(chosen) if chosen in names else 0
            runs.message = "No run yet. Press n to start one from a config file."
        runs.repaint()
        self.refresh_keys()

    def action_refresh_runs(self) -> None:
        self._list_runs()

    def action_move(self, by: int) -> None:
        runs = self.runs
        if self.record is None and runs.runs:
            runs.chosen = min(max(runs.chosen + by, 0), len(runs.runs) - 1)
            runs.repaint()
            self.query_one("#runs").scroll_to_region(Region(0, runs.chosen + 1, 1, 1), animate=False)

    def action_open(self) -> None:
        if self.record is None and self.runs.runs:
            self.watch_run(self.runs.runs[self.runs.chosen].run)

    # ------------------------------------------------------------------ starting
    def action_new_run(self) -> None:
        self._new_run()

    @work(exclusive=True, group="start")
    async def _new_run(self) -> None:
        """Ask for the config until a run starts or the person goes back; what is wrong shows in place."""
        prompt = Prompt(
            "New run: path of its config (TOML)",
            hint="On the engine's machine. The trainer goes on when this terminal is closed.",
            act=self._start_run,
        )
        run = await self.app.push_screen_wait(prompt)
        if run is not None:
            self.watch_run(run)

    async def _start_run(self, config: str) -> str:
        """The new run's id. Raises ValueError with the sentence that says what is wrong."""
        if not config.strip():
            raise ValueError("Type the path of a config file, such as runs/my-model.toml.")
        try:
            message = protocol.RunStart(id=0, config=config.strip())
            return (await self.session.client.ask(message, protocol.RunStarting)).run
        except EngineProblem as problem:
            raise ValueError(str(problem)) from None

    # ------------------------------------------------------------------ watching
    def watch_run(self, run: str) -> None:
        """Show a run's panel and follow the run, from its first event on."""
        self.record = RunRecord(run)
        self.query_one("#runs").display = False
        self.query_one("#run").display = True
        for widget in (self.query_one(RunHead), self.query_one(RunFigures), self.query_one(Samples)):
            widget.record = self.record
        self.query_one(Samples).back = 0
        self._follow(self.record)
        self._changed()

    @work(exclusive=True, group="follow")
    async def _follow(self, record: RunRecord) -> None:
        """Read the run's events until nobody trains it any more; a lost engine is started again."""
        while True:
            try:
                message = protocol.RunFollow(id=0, run=record.run, after_seq=record.seq)
                stream = await self.session.client.request(message)
                try:
                    async for event in stream:
                        if isinstance(event, protocol.RunEvents):
                            record.take(event.lines, event.bad_lines)
                            self._changed()
                finally:
                    if not stream.ended:
                        await asyncio.shield(stream.cancel())
                if record.ended is None:
                    record.lose("Its trainer is gone without a word: tfm-tui train --resume " + record.run)
                self._changed()
                return
            except EngineLost as problem:
                record.say(f"{problem} Following on in {RECONNECT:.0f} s.", "warning")
                self._changed()
                await asyncio.sleep(RECONNECT)
            except EngineProblem as problem:
                record.lose(str(problem))
                self._changed()
                return

    def action_back(self) -> None:
        if self.record is None:
            return
        self.workers.cancel_group(self, "follow")
        self.record = None
        self.query_one("#run").display = False
        self.query_one("#runs").display = True
        self.query_one("#runs").focus()
        self._list_runs()
        self.refresh_keys()

    def _changed(self) -> None:
        self._dirty = True

    def _redraw(self) -> None:
        """What changed since the last time; never more often than REDRAW says."""
        if not self._dirty or self.record is None or not self.is_current:
            return
        self._dirty = False
        self.query_one(RunHead).repaint()
        self.query_one(RunFigures).repaint()
        self._draw_samples()
        self._draw_curves(self.record)
        self.refresh_keys()

    def _draw_samples(self) -> None:
        samples = self.query_one(Samples)
        samples.repaint()
        box = self.query_one("#samples")
        title = "Samples" if samples.step is None else f"Samples, step {samples.step:,}"
        name_box(box, title=title, subtitle=", older  . newer" if samples.step is not None else "")

    def _draw_curves(self, record: RunRecord) -> None:
        series = record.curves
        drawn: dict[str, tuple[list[Span], list[Point], list[Point]]] = {
            "loss": (_newest(series["loss"], series["val_loss"], ".3f"), series["loss"], series["val_loss"]),
            "bleu": (_bleu(record), [], series["bleu"]),
            "accuracy": (
                _newest(series["accuracy"], series["val_accuracy"], ".3f"),
                series["accuracy"],
                series["val_accuracy"],
            ),
            "learning_rate": (_newest(series["learning_rate"], [], ".2e"), series["learning_rate"], []),
        }
        for curve in self.query(Curve):
            if curve.display:
                figures, trained, held_out = drawn[str(curve.id)]
                curve.draw(figures, downsample(trained, curve.points), downsample(held_out, curve.points))

    def action_sample(self, by: int) -> None:
        if self.record is not None and self.record.samples:
            samples = self.query_one(Samples)
            samples.back = min(max(samples.back - by, 0), len(self.record.samples) - 1)
            self._draw_samples()

    # ------------------------------------------------------------------ steering
    def _control(self, command: str, said: str) -> None:
        if self.record is not None:
            self._send(self.record, command, said)

    @work(group="control")
    async def _send(self, record: RunRecord, command: str, said: str) -> None:
        """The trainer looks at its inbox between steps; its answer is an event of the run."""
        record.say(said)
        self._changed()
        try:
            stream = await self.session.client.request(
                protocol.RunControl(id=0, run=record.run, command=command)
            )
            async for _ in stream:
                pass
        except EngineProblem as problem:
            record.say(str(problem), "warning")
            self._changed()

    def action_pause(self) -> None:
        paused = self.record is not None and self.record.paused
        self._control("resume" if paused else "pause", "asked it to go on" if paused else "asked it to pause")

    def action_save(self) -> None:
        self._control("save", "asked it to save")

    def action_evaluate(self) -> None:
        self._control("evaluate", "asked it to evaluate")

    def action_stop_run(self) -> None:
        self._control("stop", "asked it to save and stop")

    # ------------------------------------------------------------------ keys
    def keys_now(self) -> tuple[list[str], dict[str, str]]:
        if self.record is None:
            choose = ["train.open", "train.up", "train.down"] if self.runs.runs else []
            return [*choose, "train.new", "mode.translate", "app.leave"], {}
        going = ["train.pause", "train.save", "train.evaluate", "train.stop"]
        live = self.record.ended is None and not self.record.lost
        labels = {"train.pause": "go on" if self.record.paused else "pause"}
        samples = ["train.older", "train.newer"] if len(self.record.samples) > 1 else []
        return ["train.back", *(going if live else []), *samples, "app.leave"], labels

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys that steer a run do nothing where none is watched."""
        if action in ("pause", "save", "evaluate", "stop_run"):
            return self.record is not None
        return True


def _newest(trained: Sequence[Point], held_out: Sequence[Point], form: str) -> list[Span]:
    """The newest values in the colours of their curves."""
    spans: list[Span] = []
    if trained:
        spans += [("   train " if held_out else "   ", "dim"), (format(trained[-1][1], form), "live")]
    if held_out:
        spans += [("   val ", "dim"), (format(held_out[-1][1], form), "second")]
    return spans


def _bleu(record: RunRecord) -> list[Span]:
    held_out, best = record.evaluated, record.best_bleu
    if held_out is None or held_out.bleu is None or best is None:
        return []
    return [("   ", ""), (f"{held_out.bleu:.1f}", "second"), (f"   best {best:.1f}", "dim")]
