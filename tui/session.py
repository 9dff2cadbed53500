"""What the app knows about its engine: is it up, which model is loaded, how fast it goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from tfm.core.engine import protocol
from tfm.tui import status
from tfm.tui.client import EngineClient, EngineLost, EngineProblem
from tfm.tui.status import Part


class Task(NamedTuple):
    """What a mode needs a model for."""

    accepts: Callable[[protocol.ModelInfo], bool]
    first: str  # the model to begin with, where it is there
    missing: str  # said where there is none
    refusal: str  # said of a model that was named and cannot do it


TRANSLATE = Task(
    lambda info: info.family == "encoder-decoder",
    "en-de",
    "There is no translation model on this machine yet. Train one: {mode.train}, or `tfm-tui train CONFIG`.",
    "does not translate; {app.model} chooses another model",
)
CHAT = Task(
    lambda info: info.family == "decoder-only" and info.chat,
    "smollm2",
    "There is no model to chat with on this machine yet.",
    "has no chat template, so it cannot chat; {app.model} chooses another model",
)
FILL = Task(
    lambda info: info.family == "encoder-only",
    "captions-mlm",
    "There is no model that fills masks on this machine yet. Train one: {mode.train}, or "
    "`tfm-tui train CONFIG`.",
    "fills no masks, which takes an encoder-only model; {app.model} chooses another",
)


LAB = Task(
    lambda info: True,
    "en-de",
    "There is no model on this machine yet. Train one: {mode.train}, or `tfm-tui train CONFIG`.",
    "cannot be read",
)


TASKS = {"translate": TRANSLATE, "chat": CHAT, "fill": FILL, "lab": LAB}  # by mode


class NoModel(EngineProblem):
    """There is none that can do what a mode is for."""


class Session:
    """One mode's model in the engine. ``on_change`` is called when :meth:`status` says something new."""

    def __init__(
        self, client: EngineClient, model: str | None, on_change: Callable[[], None], task: Task = TRANSLATE
    ) -> None:
        self.client = client
        self.wanted = model
        self.remembered = ""  # the model of the last time, where it is still there
        self.task = task
        self.models: tuple[protocol.ModelInfo, ...] = ()
        self.loaded: protocol.ModelLoaded | None = None
        self.problem = ""  # why there is no model, one sentence
        self._rate = 0.0
        self._used = 0  # tokens of the context
        self._busy = ""
        self._loaded_at = -1  # client.starts when the model was loaded
        self._loaded_for: str | None = None  # what was wanted then
        self._on_change = on_change
        self._loading = asyncio.Lock()

    # ------------------------------------------------------------------ the model
    @property
    def info(self) -> protocol.ModelInfo | None:
        return self.loaded.info if self.loaded else None

    async def ready(self) -> protocol.ModelLoaded:
        """The loaded model, loading it first where it must be (at the start, after a crash, after a choice).

        Raises:
            EngineProblem: there is no engine or no such model; the sentence is kept in ``problem``.
        """
        async with self._loading:
            now = (self.client.starts, self.wanted)
            if self.loaded and (self._loaded_at, self._loaded_for) == now and self.client.welcome:
                return self.loaded
            try:
                await self.client.start()
                wanted = self.wanted  # another may be chosen while this one loads
                name = wanted or await self._first_choice()
                loaded = await self._load(name)
            except EngineProblem as problem:
                self.problem = str(problem)
                raise
            finally:
                self._say("")
            self.problem = ""
            self.loaded, self._loaded_at, self._loaded_for = loaded, self.client.starts, wanted
            self._on_change()
            return loaded

    async def choose(self, name: str) -> protocol.ModelLoaded:
        """Load another model. The one in use stays when that fails."""
        before, self.wanted = self.wanted, name
        kept, self.loaded = self.loaded, None
        try:
            return await self.ready()
        except EngineProblem:
            self.wanted, self.loaded = before, kept
            self._on_change()
            raise

    def forget(self, path: str, gone: bool) -> None:
        """The checkpoint at ``path`` is no longer in memory, or (``gone``) no longer there at all."""
        if self.loaded is not None and self.loaded.info.path == path:
            self.loaded = None
            self.wanted = None if gone else self.wanted
            self._on_change()

    async def list_models(self) -> tuple[protocol.ModelInfo, ...]:
        """Every checkpoint that the engine's machine has."""
        self.models = (await self.client.ask(protocol.ModelsList(id=0), protocol.ModelsListed)).models
        return self.models

    async def _first_choice(self) -> str:
        usable = [m for m in await self.list_models() if self.task.accepts(m) and not m.problem]
        if not usable:
            raise NoModel(self.client.told(self.task.missing))
        names = [m.name for m in usable]
        return next((name for name in (self.remembered, self.task.first) if name in names), names[0])

    async def _load(self, name: str) -> protocol.ModelLoaded:
        self._say(f"loading {short_name(name)}")
        loaded: protocol.ModelLoaded | None = None
        async for event in await self.client.request(protocol.ModelLoad(id=0, model=name)):
            if isinstance(event, protocol.LoadProgress):
                self._say(f"loading {short_name(name)} {event.fraction:.0%}")
            elif isinstance(event, protocol.ModelLoaded):
                loaded = event
        if loaded is None:
            raise EngineLost(f"The engine did not load {name}.")
        if not self.task.accepts(loaded.info):
            raise EngineProblem(f"{loaded.info.name} {self.client.told(self.task.refusal)}.")
        return loaded

    # ------------------------------------------------------------------ what the header shows
    def rate(self, tokens_per_second: float) -> None:
        self._rate = tokens_per_second
        self._on_change()

    def engine_changed(self, state: str) -> None:
        """The client's ``on_change``."""
        self._rate = 0.0
        box = self.client.box
        starting = f"connecting to {box.name}" if box else "starting the engine"
        self._say(starting if state == "starting" else "")

    def _say(self, busy: str) -> None:
        self._busy = busy
        self._on_change()

    def context(self, used: int) -> None:
        """Tokens that what is on the screen takes of the model's context."""
        if used != self._used:
            self._used = used
            self._on_change()

    def status(self) -> list[Part]:
        """What the header says, without the figures of the machine."""
        if self._busy:
            return [Part(f"{self._busy} …", "live")]
        box = self.client.box
        if self.client.welcome is None and self.client.starts:
            if box is None:
                return [Part("engine stopped", "bad")]
            again = f"next try in {self.client.pause:.0f} s"
            return [Part(f"{box.name} lost", "bad"), *([Part(again)] if self.client.pause else [])]
        if self.loaded is None:
            return [Part("no model", "bad")] if self.problem else []
        loaded, info = self.loaded, self.loaded.info
        place = box.name if box else ""
        return [
            *status.model_parts(short_name(info.name), place, loaded.device, loaded.precision, self._rate),
            *status.context_part(self._used, info.max_positions),
        ]


def short_name(name: str) -> str:
    """A model's name; of a path, its last part."""
    return name.rstrip("/").rsplit("/", 1)[-1] or name
