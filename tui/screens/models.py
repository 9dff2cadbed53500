"""Models: every checkpoint of the engine's machine: read, load, verify, compare, bring in, delete, use."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, TypeVar, cast

from textual import work
from textual.content import Content

from tfm.core.engine import protocol
from tfm.core.engine.protocol import ModelInfo
from tfm.tui.client import EngineProblem
from tfm.tui.commands.output import human_bytes
from tfm.tui.paths import PathSuggester
from tfm.tui.safe_text import safe_text
from tfm.tui.screens.models_frame import ModelsFrame
from tfm.tui.screens.prompt import Choice, Prompt
from tfm.tui.shelf import Work, mode_for, reference

if TYPE_CHECKING:
    from tfm.tui.app import TfmApp

SUGGESTED = "smollm2"  # what a pull offers first
Answer = TypeVar("Answer", bound=protocol.Event)


class ModelsScreen(ModelsFrame):
    """What the keys do. Each thing that takes a while is a worker of its own, and the screen goes on."""

    # ------------------------------------------------------------------ things that take a while
    async def carry_out(self, work: Work, request: protocol.Request, kind: type[Answer]) -> Answer | None:
        """Send a request and show how far it is; the answer, or None where it was called off or failed."""
        shelf = self.shelf
        if any((other.verb, other.name) == (work.verb, work.name) for other in shelf.works):
            return None  # it is being done
        shelf.works.append(work)
        self.show()
        answer: Answer | None = None
        try:
            work.stream = await self.session.client.request(request)
            if work.cancelled:  # while the engine was being started
                await work.stream.cancel()
            async for event in work.stream:
                if isinstance(event, protocol.LoadProgress):
                    work.fraction, work.stage = event.fraction, event.stage
                    self.show_foot()
                elif isinstance(event, kind):
                    answer = event
        except EngineProblem as problem:
            self.say(str(problem), "bad")
            self.tell(str(problem))
            answer = None
        else:
            if work.cancelled and answer is None:
                self.say(f"{work.verb} {work.name}: called off, nothing was kept")
        finally:
            shelf.works.remove(work)
            if self.standing:
                self.look()
                self.show()
        return answer

    def tell(self, sentence: str) -> None:
        """A sentence that must be read."""
        self.notify(safe_text(sentence), severity="error", markup=False, timeout=15)

    def action_escape(self) -> None:
        """The newest of what is going on; else the comparison; else the card."""
        going_on = [work for work in self.shelf.works if not work.cancelled]
        if going_on:
            self._call_off(going_on[-1])
        elif self.reading:
            self.listing.focus()
        elif self.shelf.compared is not None:
            self.shelf.compared = None
            self.say("")
            self.show()

    def _call_off(self, work: Work) -> None:
        work.cancelled = True
        if work.stream is not None:
            self.run_worker(work.stream.cancel(), group="cancel")
        self.show_foot()

    # ------------------------------------------------------------------ memory
    def action_load(self) -> None:
        if (info := self._usable()) is not None:
            self._load(info, then_use=False)

    def action_use(self) -> None:
        if (info := self._usable()) is not None:
            self._load(info, then_use=True)

    def _usable(self) -> ModelInfo | None:
        info = self.shelf.here
        if info is not None and info.problem:
            self.tell(f"{info.name} cannot be used: {info.problem}")
            return None
        return info

    @work(group="works")
    async def _load(self, info: ModelInfo, then_use: bool) -> None:
        """Have it in memory; then, if nobody went elsewhere meanwhile, go where it is good for."""
        name = reference(info, self.shelf.models)
        request = protocol.ModelLoad(id=0, model=name)
        loaded = await self.carry_out(Work("loading", info.name), request, protocol.ModelLoaded)
        if loaded is None:
            return
        self.say(f"{info.name} is in memory, {loaded.precision} on {loaded.device}")
        mode, app = mode_for(info), cast("TfmApp", self.app)
        if not then_use:
            return
        try:
            await app.sessions[mode].choose(name)
        except EngineProblem as problem:
            self.tell(str(problem))
            return
        if self.is_current:
            app.action_mode(mode)

    @work(group="works")
    async def action_unload(self) -> None:
        info = self.shelf.here
        if info is None or not self.shelf.in_memory(info):
            return
        message = protocol.ModelUnload(id=0, model=reference(info, self.shelf.models))
        try:
            done = await self.session.client.ask(message, protocol.Done)
        except EngineProblem as problem:
            self.tell(str(problem))
            return
        self._forget(info, gone=False)
        self.say(f"{info.name} gave back {human_bytes(done.detail.get('freed', 0))}")
        self.look()

    def _forget(self, info: ModelInfo, gone: bool) -> None:
        """The modes that hold on to it load it anew when they need it; a deleted one, another."""
        for session in cast("TfmApp", self.app).sessions.values():
            session.forget(info.path, gone)

    # ------------------------------------------------------------------ looking closely
    @work(group="works")
    async def action_verify(self) -> None:
        info = self.shelf.here
        if info is None:
            return
        request = protocol.ModelsVerify(id=0, model=reference(info, self.shelf.models))
        found = await self.carry_out(Work("verifying", info.name), request, protocol.ModelVerified)
        if found is None:
            return
        self.shelf.verified[info.path] = found.problem
        if found.problem:
            self.say(f"{info.name}: {found.problem}", "bad")
        else:
            self.say(f"{info.name}: {found.n_files} files are as their manifest says", "second")
        self.show()

    def action_compare(self) -> None:
        """The first time: this is one of the two. From then on the chosen one is the other."""
        info, shelf = self.shelf.here, self.shelf
        if info is None:
            return
        same = shelf.compared is not None and shelf.compared.path == info.path
        shelf.compared = None if same else info
        if not same:
            end = self.told("{models.stop} ends it")
            self.say(f"comparing with {info.name}: choose another one; {end}", "live")
        self.show()

    # ------------------------------------------------------------------ bringing in
    @work(group="import")
    async def action_import(self) -> None:
        check = _Checks(self.shelf.models)
        hint = "On the engine's machine: a Hugging Face folder, or a .gguf file."
        paths = PathSuggester(".gguf") if self.session.client.box is None else None
        source = await self.app.push_screen_wait(
            Prompt("Import: path", hint=hint, check=check.path, paths=paths)
        )
        if source is None:
            return
        source = source.strip()
        guess = PurePath(source).stem if source.endswith(".gguf") else PurePath(source).name
        hint = "It lands under $TFM_HOME/checkpoints; the file you named stays as it is."
        prompt = Prompt("Import: what to call it", text=guess, hint=hint, check=check.name)
        name = await self.app.push_screen_wait(prompt)
        if name is not None:
            self._bring(
                "importing", name.strip(), protocol.ModelsImport(id=0, source=source, name=name.strip())
            )

    @work(group="import")
    async def action_pull(self) -> None:
        hint = (
            f"{SUGGESTED} is SmolLM2-135M-Instruct, a small model to chat with (a download of 93 MB); or "
            "name one of the hub, such as owner/name."
        )
        prompt = Prompt("Get a published model", text=SUGGESTED, hint=hint, check=_Checks(()).path)
        name = await self.app.push_screen_wait(prompt)
        if name is not None:
            self._bring("fetching", name.strip(), protocol.ModelsPull(id=0, name=name.strip()))

    @work(group="works")
    async def _bring(self, verb: str, name: str, request: protocol.Request) -> None:
        kind = protocol.ModelImported if isinstance(request, protocol.ModelsImport) else protocol.ModelPulled
        came = await self.carry_out(Work(verb, name), request, kind)
        if isinstance(came, protocol.ModelImported | protocol.ModelPulled):
            self.say(f"{came.info.name} is here: {human_bytes(came.info.size_bytes)}", "second")
            self.shelf.awaited = came.info.path
            self.look()

    # ------------------------------------------------------------------ deleting
    @work(group="delete", exclusive=True)
    async def action_delete(self) -> None:
        info = self.shelf.here
        if info is None:
            return
        if info.source != "local":
            why = {"bundled": "is bundled with the program", "run": "belongs to its training run"}
            self.say(
                f"{info.name} {why.get(info.source, 'is not yours')}: only your own are deleted here", "live"
            )
            return
        options = [
            ("keep", Content("Keep it")),
            ("delete", Content(f"Delete it: {human_bytes(info.size_bytes)} in {safe_text(info.path)}")),
        ]
        if await self.app.push_screen_wait(Choice(f"Delete {info.name}?", options, "keep")) != "delete":
            return
        message = protocol.ModelsDelete(id=0, model=reference(info, self.shelf.models))
        try:
            await self.session.client.ask(message, protocol.Done)
        except EngineProblem as problem:
            self.tell(str(problem))
            return
        self._forget(info, gone=True)
        self.cards.pop(info.path, None)
        self.shelf.verified.pop(info.path, None)
        if self.shelf.compared is not None and self.shelf.compared.path == info.path:
            self.shelf.compared = None
        self.say(f"{info.name} is deleted")
        self.look()

    # ------------------------------------------------------------------ the rest
    def action_switch_focus(self) -> None:
        (self.listing if self.reading else self.page).focus()

    def action_refresh(self) -> None:
        self.cards.clear()
        self.look()


class _Checks:
    """What a prompt can say at once; the rest is the engine's to say."""

    def __init__(self, models: tuple[ModelInfo, ...]) -> None:
        self._taken = {info.name for info in models if info.source != "run"}

    def path(self, text: str) -> None:
        if not text.strip():
            raise ValueError("Type a name or a path.")

    def name(self, text: str) -> None:
        if not text.strip():
            raise ValueError("Type a name.")
        if "/" in text:
            raise ValueError("A name, not a path.")
        if text.strip() in self._taken:
            raise ValueError(f"There is a model {text.strip()} already; choose another name.")
