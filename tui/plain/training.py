"""Train: the runs of the engine's machine, started, watched line by line, and steered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tfm.core.engine import protocol
from tfm.train import events
from tfm.tui.client import EngineLost
from tfm.tui.plain.commands import command
from tfm.tui.plain.part import Part
from tfm.tui.run_lines import Printer
from tfm.tui.run_record import RunRecord
from tfm.tui.starting import EXAMPLE, run_start

if TYPE_CHECKING:
    from tfm.tui.plain.dialogue import Dialogue


class Training(Part):
    NAME = "train"
    DOES = "/runs lists the training runs, /watch follows one, /start begins one."

    def __init__(self, dialogue: Dialogue) -> None:
        super().__init__(dialogue)
        self.run = ""  # the one that commands are about

    async def take(self, text: str) -> None:
        raise ValueError(self.DOES)

    @command("runs", help="The training runs, newest first.")
    async def runs(self, _text: str) -> None:
        listed = (await self.client.ask(protocol.RunsList(id=0), protocol.RunsListed)).runs
        for run in sorted(listed, key=lambda run: -run.started):
            best = "".join(f", {name} {value:.4g}" for name, value in run.best.items())
            self.speaker.say(f"{run.run}: {run.state}, step {run.step:,} of {run.total_steps:,}{best}")
        if not listed:
            self.speaker.note("No run yet: /start CONFIG begins one. A config can be as small as this:")
            for line in EXAMPLE.splitlines():
                self.speaker.note(line)

    @command(
        "start", arguments="CONFIG [NAME=VALUE ...] [--nproc N]",
        help="Begin a run; a path on the engine's machine.",
    )  # fmt: skip
    async def start(self, text: str) -> None:
        started = await self.client.ask(run_start(text), protocol.RunStarting)
        self.run = started.run
        self.speaker.say(f"Run {started.run} has begun; /watch follows it.")

    @command("watch", arguments="[RUN]", help="Follow a run until it ends; Ctrl+C leaves it alone.")
    async def watch(self, text: str) -> None:
        """What has been is summed up; from then on each event is a line."""
        run = self._named(text)
        record, printer, past = RunRecord(run), Printer(), True
        while True:
            try:
                stream = await self.open(protocol.RunFollow(id=0, run=run, after_seq=record.seq))
                try:
                    async for event in stream:
                        if isinstance(event, protocol.RunEvents):
                            self._say_events(record, printer, event, past=past)
                            past = False
                finally:
                    await self.settle(stream)
            except EngineLost as problem:
                if problem.kind != "lost":
                    raise
                self.speaker.note(f"{problem} Following goes on by itself.")
                await self.client.rest()
                continue
            self.run = run
            if record.ended is None and self.stopped:
                self.speaker.note(f"Run {run} goes on.")
            elif record.ended is None:
                raise ValueError(f"The trainer of {run} is gone without a word.")
            return

    def _say_events(
        self, record: RunRecord, printer: Printer, batch: protocol.RunEvents, *, past: bool
    ) -> None:
        before = record.seq
        record.take(batch.lines, batch.bad_lines)
        said: list[str] = []
        for line in batch.lines:
            try:
                event = events.decode(line)
            except msgspec.DecodeError:
                continue
            if event.seq > before or event.seq < 0:
                said += printer.lines(event)
        for text in said[-BACKLOG:] if past else said:
            self.speaker.say(text)

    @command("run", arguments="COMMAND [RUN] [NAME=VALUE ...]",
             help=f"Steer a run: {', '.join(events.COMMANDS)}.")  # fmt: skip
    async def steer(self, text: str) -> None:
        words = text.split()
        if not words or words[0] not in events.COMMANDS:
            raise ValueError(f"Say what to do: {', '.join(events.COMMANDS)}.")
        args = dict(word.split("=", 1) for word in words[1:] if "=" in word)
        names = [word for word in words[1:] if "=" not in word]
        run = self._named(names[0] if names else "")
        request = protocol.RunControl(
            id=0, run=run, command=words[0], args={name: _value(value) for name, value in args.items()}
        )
        async for _ in await self.client.request(request):
            pass
        self.run = run
        self.speaker.note(f"Asked {run}: {words[0]}. Its answer is a line of /watch.")

    def _named(self, text: str) -> str:
        run = text or self.run
        if not run:
            raise ValueError("Which run? /runs lists them.")
        return run


BACKLOG = 12  # lines of the past that watching begins with


def _value(text: str) -> object:
    """A number where it is one, else the text."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
