"""Dialogue: one line is heard, what it asks for is done and said, then the next one.

While text is being written a person may stop it, turn its knobs or type ahead; in a pipe each line
waits for the one before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from tfm.tui.client import LOCAL_ENGINE, EngineClient, EngineLost, EngineProblem
from tfm.tui.commands.suggest import suggest
from tfm.tui.plain.chatting import Chatting
from tfm.tui.plain.commands import Command, commands_of
from tfm.tui.plain.filling import Filling
from tfm.tui.plain.general import General
from tfm.tui.plain.knobs import Knobs
from tfm.tui.plain.listening import Ear
from tfm.tui.plain.part import Part
from tfm.tui.plain.reading import Reading
from tfm.tui.plain.shelf import Shelf
from tfm.tui.plain.speaking import Speaker
from tfm.tui.plain.training import Training
from tfm.tui.plain.translating import Translating
from tfm.tui.remote import Box
from tfm.tui.session import TASKS, Session, short_name

PARTS = (Translating, Chatting, Filling, Reading, Training)


class Dialogue:
    """The engine, the modes, and whose turn it is to speak."""

    def __init__(self, box: Box | None, model: str | None, mode: str) -> None:
        self.speaker = Speaker()
        self.client = EngineClient(LOCAL_ENGINE, box=box, on_change=self._engine_changed, told=_told)
        self.sessions = {
            name: Session(self.client, model if name == mode else None, lambda: None, task)
            for name, task in TASKS.items()
        }
        self.parts: dict[str, Part] = {kind.NAME: kind(self) for kind in PARTS}
        self.part = self.parts[mode]
        self._everywhere = [
            command for owner in (General(self), Shelf(self), Knobs(self)) for command in commands_of(owner)
        ]
        self._status: int | None = None  # to leave with
        self._failed = False
        self._lost = False
        self._at_work: asyncio.Task[None] | None = None
        self._ear: Ear | None = None

    # ------------------------------------------------------------------ the loop
    async def run(self) -> int:
        """Until the end of the input, ``/quit`` or a signal; the exit status."""
        loop = asyncio.get_running_loop()
        main = asyncio.current_task()
        assert main is not None

        def go(status: int) -> None:
            self._status = status
            main.cancel()

        loop.add_signal_handler(signal.SIGINT, self._interrupted)
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, go, 128 + number)
        try:
            self._ear = Ear(by_hand=self.speaker.by_hand)
            await self._converse(self._ear)
        except asyncio.CancelledError:
            if self._status is None:
                raise
        finally:
            await self._end()
        return (1 if self._failed else 0) if self._status is None else self._status

    async def _converse(self, ear: Ear) -> None:
        if self.speaker.by_hand:
            self.speaker.note("tfm-tui, plain. /help lists the commands, Ctrl+C stops a text, Ctrl+D leaves.")
            self.speaker.note(self.part.DOES)
            await self._do(self.prepare())
        while self._status is None:
            self.speaker.prompt(self.part.NAME)
            try:
                line = await ear.line()
            except ValueError as error:
                self._fail(error)
                continue
            if line is None:
                if self.speaker.by_hand:
                    self.speaker.say()
                return
            await self._carry_out(line, ear)

    async def _carry_out(self, line: str, ear: Ear) -> None:
        """Do what a line asks for; what a person types meanwhile is obeyed at once or kept for later."""
        self._at_work = asyncio.create_task(self._do(self._obey(line)))
        ahead: list[str] = []
        hearing: asyncio.Task[str | None] | None = None
        try:
            while not self._at_work.done():
                if hearing is None and self.speaker.by_hand:
                    hearing = asyncio.create_task(ear.line())
                waited = {self._at_work, hearing} if hearing else {self._at_work}
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                if hearing is not None and hearing.done():
                    heard, hearing = hearing, None
                    await self._meanwhile(heard, ahead)
                    if heard.exception() is None and heard.result() is None:  # Ctrl+D: after this text
                        break
            await self._at_work
        except asyncio.CancelledError:
            self._at_work.cancel()
            raise
        finally:
            self._at_work = None
            if hearing is not None:
                hearing.cancel()
                with contextlib.suppress(asyncio.CancelledError, ValueError):
                    await hearing
        for later in ahead:
            if self._status is None:
                await self._carry_out(later, ear)

    async def _meanwhile(self, heard: asyncio.Task[str | None], ahead: list[str]) -> None:
        try:
            line = heard.result()
        except ValueError as error:
            return self._fail(error)
        if line is None:
            self._status = 0
            await self.part.stop()
        elif (found := self._find(line)) is not None and found[0].at_once:
            await self._do(found[0].obey(found[1]))
        else:
            ahead.append(line)

    async def _do(self, work: Awaitable[None]) -> None:
        try:
            await work
        except (ValueError, EngineProblem) as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failed = self._failed or not self.speaker.by_hand
        self.speaker.note(str(error))

    async def _obey(self, line: str) -> None:
        if not line.startswith("/"):
            if line.strip():
                await self.part.take(line)
        elif line.startswith("//"):
            await self.part.take(line[1:])
        else:
            found = self._find(line)
            if found is None:
                name = line.split()[0][1:]
                near = suggest(name, [n for known in self.commands() for n in known.names])
                raise ValueError(f"There is no command /{name}{near}; /help lists them.")
            await found[0].obey(found[1])

    def commands(self) -> list[Command]:
        """Those that do something now: the mode's own first."""
        return [*commands_of(self.part), *self._everywhere]

    def _find(self, line: str) -> tuple[Command, str] | None:
        name, _, rest = line[1:].partition(" ")
        for known in self.commands():
            if name.lower() in known.names:
                return known, rest.strip()
        return None

    # ------------------------------------------------------------------ the engine
    async def prepare(self) -> None:
        """Have the mode's model loaded, and say which it is."""
        if self.part.NAME not in self.sessions:
            return
        session = self.part.session
        try:
            loaded = await session.ready()
        except EngineLost as problem:
            if problem.kind != "person" or not self.speaker.by_hand or not self.sign_in():
                raise
            loaded = await session.ready()
        where = f" on {self.client.box.name}" if self.client.box else ""
        self.speaker.note(
            f"The model is {short_name(loaded.info.name)}{where}, {loaded.device} {loaded.precision}."
        )

    def sign_in(self) -> bool:
        """Let ssh ask on this terminal."""
        box = self.client.box
        if box is None:
            raise ValueError("The engine is on this machine: there is nothing to sign in to.")
        assert self._ear is not None
        with self._ear.covered():
            return box.sign_in()

    @property
    def _idle(self) -> bool:
        return self._at_work is None and self._status is None

    def _engine_changed(self, state: str) -> None:
        """Said when it is news: a lost box, and that it is there again."""
        box = self.client.box
        if state == "waiting" and not self._lost and box is not None:
            self._lost = True
            self.speaker.note(f"Lost {box.name}; trying to reach it again.")
        elif state == "ready" and self._lost and box is not None:
            self._lost = False
            self.speaker.note(f"Connected to {box.name} again.")
        elif state == "lost" and box is None and self._idle and self.client.starts:
            self.speaker.note("The engine has stopped; the next text starts it again.")

    # ------------------------------------------------------------------ the end
    def leave(self) -> None:
        self._status = 1 if self._failed else 0

    def _interrupted(self) -> None:
        if self._at_work is not None:
            if self.part.streams:
                self._spawn(self.part.stop)
            else:
                self._at_work.cancel()
        elif self.speaker.by_hand:
            self.speaker.note("Ctrl+D or /quit leaves.")
            self.speaker.prompt(self.part.NAME)
        else:
            self._status = 128 + signal.SIGINT

    def _spawn(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._stopping = asyncio.create_task(work())

    async def _end(self) -> None:
        for part in self.parts.values():
            part.close()
        await self.client.close()
        if self.client.box is not None:
            self.client.box.sign_out()


def _told(sentence: str) -> str:
    """What keys do in the app, commands do here."""
    for id, command in (("app.sign_in", "/signin"), ("app.model", "/model"), ("mode.train", "/mode train")):
        sentence = sentence.replace(f"{{{id}}}", command)
    return sentence


def run_plain(host: str | None, remote_command: str | None, model: str | None, mode: str | None) -> int:
    """Hold the dialogue on stdin and stdout; the exit status, 1 where a line of a pipe failed.

    Raises:
        ValueError: there is no such mode or machine; one sentence.
    """
    from tfm.tui.app import mode_for
    from tfm.tui.remote import box_of

    box = None if host is None else box_of(host, remote_command)
    names = [kind.NAME for kind in PARTS]
    if mode is not None and mode not in names:
        raise ValueError(f"there is no plain mode {mode!r}; there are {', '.join(names)}")
    if mode is None and model is not None and box is None:
        mode = mode_for(model)

    async def talk() -> int:
        return await Dialogue(box, model, mode if mode in names else names[0]).run()

    return asyncio.run(talk())
