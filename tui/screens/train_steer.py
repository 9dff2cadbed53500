"""Steering: what is asked of the trainer of the run that is watched.

Every request is a file in the run's inbox; the trainer looks there between two steps, and its answer
is an event of the run, which shows as the panel's news.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from textual import work
from textual.containers import Vertical
from textual.content import Content

from tfm.core.engine import protocol
from tfm.tui import steering
from tfm.tui.client import EngineClient, EngineProblem
from tfm.tui.run_record import RunRecord
from tfm.tui.safe_text import safe_text
from tfm.tui.screens.prompt import Choice, Prompt
from tfm.tui.screens.text_prompt import TextPrompt
from tfm.tui.widgets.run_list import ago

if TYPE_CHECKING:
    from tfm.tui.screens.base import ModeScreen

_RESUMABLE = ("stopped", "failed", "lost")  # states from which a run can go on


class Steering(Vertical):
    """The actions of ``keymap.STEER``."""

    @property
    def record(self) -> RunRecord | None:
        """The run that is steered."""
        raise NotImplementedError

    def changed(self) -> None:
        """Something that the panel shows is other now."""
        raise NotImplementedError

    def watch_run(self, run: str, over: tuple[str, ...] = ()) -> None:
        """Show a run, with others drawn over it."""
        raise NotImplementedError

    @property
    def client(self) -> EngineClient:
        return cast("ModeScreen", self.screen).session.client

    def say(self, record: RunRecord, text: str, level: str = "info") -> None:
        record.say(text, level)
        self.changed()

    # ------------------------------------------------------------------ asking
    def _ask(self, command: str, said: str, args: dict[str, Any] | None = None) -> None:
        if self.record is not None and self._steerable(self.record):
            self._send(self.record, command, said, args or {})

    def _steerable(self, record: RunRecord) -> bool:
        if not record.going_on:
            how = "Space goes on with it" if record.state in _RESUMABLE else "F forks it"
            self.say(record, f"This run is {record.state} and does not train: {how}.", "warning")
        return record.going_on

    @work(group="control")
    async def _send(self, record: RunRecord, command: str, said: str, args: dict[str, Any]) -> None:
        self.say(record, said)
        try:
            message = protocol.RunControl(id=0, run=record.run, command=command, args=args)
            async for _ in await self.client.request(message):
                pass
        except EngineProblem as problem:
            self.say(record, str(problem), "warning")

    # ------------------------------------------------------------------ at once
    def action_pause(self) -> None:
        record = self.record
        if record is None:
            return
        if not record.going_on and record.state in _RESUMABLE:
            self._resume(record)
        elif record.paused:
            self._ask("resume", "asked it to go on")
        else:
            self._ask("pause", "asked it to pause")

    @work(exclusive=True, group="resume")
    async def _resume(self, record: RunRecord) -> None:
        """A trainer for a run that has none."""
        self.say(record, "starting a trainer")
        try:
            await self.client.ask(protocol.RunStart(id=0, config="", resume=record.run), protocol.RunStarting)
        except EngineProblem as problem:
            self.say(record, str(problem), "error")
        else:
            if self.record is record:
                self.follow(record)

    def follow(self, record: RunRecord) -> None:
        """Read a run's events as they come."""
        raise NotImplementedError

    def action_save(self) -> None:
        self._ask("save", "asked it to save")

    def action_evaluate(self) -> None:
        self._ask("evaluate", "asked it to evaluate")

    def action_stop_run(self) -> None:
        self._ask("stop", "asked it to save and stop")

    # ------------------------------------------------------------------ with words
    def action_learning_rate(self) -> None:
        record = self.record
        if record is None or not self._steerable(record):
            return

        def done(text: str | None) -> None:
            if text is not None:
                args = steering.parse_rate(text)
                rate = f"{args['value']:g}" if args else "the schedule's"
                steps = f" for {args['steps']:,} steps" if "steps" in args else ""
                self._ask("learning_rate", f"asked for the rate {rate}{steps}", args)

        now = f"{record.step.learning_rate:.3g} for 500" if record.step else ""
        self.app.push_screen(
            Prompt("Learning rate", text=now, hint=steering.RATE_HINT, check=steering.parse_rate), done
        )

    def action_bookmark(self) -> None:
        record = self.record
        if record is None or not self._steerable(record):
            return

        def done(text: str | None) -> None:
            if text is not None:
                name = steering.parse_bookmark(text)
                self._ask("bookmark", f"asked it to keep this point as {name}", {"name": name})

        hint = "A checkpoint now, kept under this name whatever comes: r goes back to it, F forks from it."
        self.app.push_screen(Prompt("Bookmark: a name", hint=hint, check=steering.parse_bookmark), done)

    def action_prompts(self) -> None:
        record = self.record
        if record is None or not self._steerable(record):
            return

        def done(text: str | None) -> None:
            if text is not None:
                texts = steering.parse_prompts(text)
                said = f"asked for samples of {len(texts)} prompts" if texts else "asked for its own prompts"
                self._ask("prompts", said, {"texts": texts})

        hint = "One a line, as they shall be from now on. Nothing: those of the config again."
        text = "\n".join(safe_text(prompt) for prompt in record.prompts)
        self.app.push_screen(TextPrompt("Fixed prompts of the samples", text, hint), done)

    # ------------------------------------------------------------------ checkpoints
    @work(exclusive=True, group="checkpoints")
    async def action_roll_back(self) -> None:
        record = self.record
        if record is None or not self._steerable(record):
            return
        chosen = await self._choose_checkpoint(
            record, "Go back to: later steps are undone, their checkpoints kept aside"
        )
        if chosen is not None:
            where = f"step {chosen.step:,}" if chosen.name.isdecimal() else chosen.name
            wanted = {"step": chosen.step} if chosen.name.isdecimal() else {"name": chosen.name}
            self._ask("rollback", f"asked it to go back to {where}", wanted)

    @work(exclusive=True, group="checkpoints")
    async def action_fork(self) -> None:
        """A checkpoint, then what shall be other, then a run of its own, with this one over it."""
        record = self.record
        if record is None:
            return
        chosen = await self._choose_checkpoint(record, "Fork from: a new run goes on from there")
        if chosen is None:
            return

        async def fork(text: str) -> str:
            request = protocol.RunFork(
                id=0, run=record.run, checkpoint=chosen.name, overrides=steering.parse_changes(text)
            )
            try:
                return (await self.client.ask(request, protocol.RunStarting)).run
            except EngineProblem as problem:
                raise ValueError(str(problem)) from None

        hint = "Such as optim.learning_rate=1e-3 loop.max_steps=9000. Nothing: exactly as this run goes on."
        prompt = Prompt(f"Fork from step {chosen.step:,}: what is other", hint=hint, act=fork)
        run = await self.app.push_screen_wait(prompt)
        if run is not None:
            self.watch_run(run, over=(record.run,))

    async def _choose_checkpoint(self, record: RunRecord, title: str) -> protocol.RunCheckpoint | None:
        """Ask which; the newest comes first."""
        try:
            request = protocol.RunCheckpoints(id=0, run=record.run)
            listed = (await self.client.ask(request, protocol.RunCheckpointsListed)).checkpoints
        except EngineProblem as problem:
            self.say(record, str(problem), "warning")
            return None
        if not listed:
            self.say(record, "It has no checkpoint yet: S saves one now.", "warning")
            return None
        by_name = {checkpoint.name: checkpoint for checkpoint in reversed(listed)}
        rows = [(name, _line(checkpoint)) for name, checkpoint in by_name.items()]
        chosen = await self.app.push_screen_wait(Choice(title, rows, next(iter(by_name))))
        return None if chosen is None else by_name[chosen]


def _line(checkpoint: protocol.RunCheckpoint) -> Content:
    """One line about a checkpoint."""
    name = f"step {checkpoint.step:,}" if checkpoint.name.isdecimal() else checkpoint.name
    about = [] if checkpoint.name.isdecimal() else [f"step {checkpoint.step:,}"]
    about += ["best"] if checkpoint.best else []
    about += [f"{key} {checkpoint.scores[key]:.3g}" for key in ("bleu", "loss") if key in checkpoint.scores]
    about.append(ago(time.time() - checkpoint.saved))
    return Content(f"{safe_text(name):<24} ") + Content.styled(" · ".join(about), "$quiet")
