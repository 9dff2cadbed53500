"""Commands that are the same everywhere: modes, models, help, the engine's machine, the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfm.core.engine import protocol
from tfm.tui.plain.commands import Command, command, commands_of

if TYPE_CHECKING:
    from tfm.tui.plain.dialogue import Dialogue

GIGA = 1e9


class General:
    def __init__(self, dialogue: Dialogue) -> None:
        self._dialogue = dialogue
        self._speaker = dialogue.speaker

    @command("help", "?", arguments="[COMMAND]", help="This list, or one command.", at_once=True)
    async def help(self, text: str) -> None:
        dialogue = self._dialogue
        own = list(commands_of(dialogue.part))
        if text:
            name = text.removeprefix("/")
            known = next((c for c in dialogue.commands() if name in c.names), None)
            if known is None:
                raise ValueError(f"There is no command /{name} in this mode.")
            self._say([known])
            return
        self._speaker.say(dialogue.part.DOES)
        self._speaker.say(f"Commands of {dialogue.part.NAME}:")
        self._say(own)
        self._speaker.say("Commands everywhere:")
        self._say(dialogue.commands()[len(own) :])
        self._speaker.say("A text that begins with a slash is typed with two. Ctrl+C stops a text.")

    def _say(self, commands: list[Command]) -> None:
        for known in commands:
            also = f" Also /{', /'.join(known.names[1:])}." if known.names[1:] else ""
            self._speaker.say(f"  {known.usage}: {known.help}{also}")

    @command("mode", arguments="[NAME]", help="Go to another mode, such as chat; alone: which it is.")
    async def mode(self, text: str) -> None:
        dialogue = self._dialogue
        if not text:
            self._speaker.say(f"This is {dialogue.part.NAME}; there are {', '.join(dialogue.parts)}.")
            return
        if text not in dialogue.parts:
            raise ValueError(f"There is no mode {text!r}; there are {', '.join(dialogue.parts)}.")
        dialogue.part = dialogue.parts[text]
        if self._speaker.by_hand:
            self._speaker.note(dialogue.part.DOES)
            await dialogue.prepare()

    @command("models", help="The checkpoints on the engine's machine.")
    async def models(self, _text: str) -> None:
        models = (await self._dialogue.client.ask(protocol.ModelsList(id=0), protocol.ModelsListed)).models
        for model in models:
            about = (
                model.problem
                or f"{model.family}, {model.n_parameters / 1e6:.1f} M parameters, {model.source}"
            )
            self._speaker.say(f"{model.name}: {about}. {model.summary}".rstrip())
        if not models:
            raise ValueError("There is no checkpoint yet.")

    @command("model", arguments="[NAME]", help="Load another model; alone: which it is.")
    async def model(self, text: str) -> None:
        part = self._dialogue.part
        if part.NAME not in self._dialogue.sessions:
            raise ValueError(f"{part.NAME} has no model; /mode goes elsewhere.")
        if text:
            await part.session.choose(text)
        await self._dialogue.prepare()
        if text and not self._speaker.by_hand:
            self._speaker.note(f"The model is {text}.")

    @command("pull", arguments="NAME", help="Fetch a published model onto the engine's machine.")
    async def pull(self, text: str) -> None:
        if not text:
            raise ValueError("Name a published model, such as /pull smollm2.")
        part = self._dialogue.part
        stream = await part.open(protocol.ModelsPull(id=0, name=text))
        stage = ""
        try:
            async for event in stream:
                if isinstance(event, protocol.LoadProgress) and event.stage != stage:
                    stage = event.stage
                    self._speaker.note(stage)
                elif isinstance(event, protocol.ModelPulled):
                    self._speaker.say(f"{event.info.name} is there: /model {event.info.name} loads it.")
        finally:
            await part.settle(stream)

    @command("status", help="The engine, its machine and what that is doing.", at_once=True)
    async def status(self, _text: str) -> None:
        client = self._dialogue.client
        box = await client.ask(protocol.BoxStats(id=0), protocol.Box)
        welcome = client.welcome
        if welcome is not None:
            where = f"{welcome.host}, {welcome.device or 'device not known yet'}"
            self._speaker.say(f"Engine {welcome.app_version} on {where}, {welcome.threads} threads.")
        used, total = box.memory_used / GIGA, box.memory_total / GIGA
        self._speaker.say(f"CPU {box.cpu_percent:.0f} percent, memory {used:.1f} of {total:.1f} GB.")
        for card in box.gpus:
            figures = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in card.items())
            self._speaker.say(f"GPU: {figures}.")

    @command("signin", help="Let ssh ask for a password or show a host key (with --host).")
    async def sign_in(self, _text: str) -> None:
        if not self._speaker.by_hand:
            raise ValueError("Nobody can be asked here: sign in on a terminal.")
        if not self._dialogue.sign_in():
            raise ValueError("Not signed in.")
        await self._dialogue.prepare()

    @command("stop", help="Stop what is being written, and keep it.", at_once=True)
    async def stop(self, _text: str) -> None:
        if not await self._dialogue.part.stop():
            raise ValueError("Nothing is being written.")

    @command("quit", "exit", "q", help="Leave. A training run goes on.", at_once=True)
    async def quit(self, _text: str) -> None:
        await self._dialogue.part.stop()
        self._dialogue.leave()
