"""Commands about checkpoints: read their cards, verify them, bring and delete them."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, TypeVar

from tfm.core.engine import protocol
from tfm.tui.plain.commands import command

if TYPE_CHECKING:
    from tfm.tui.plain.dialogue import Dialogue

Answer = TypeVar("Answer", bound=protocol.Event)


class Shelf:
    def __init__(self, dialogue: Dialogue) -> None:
        self._dialogue = dialogue
        self._speaker = dialogue.speaker

    @command("card", arguments="MODEL", help="What a checkpoint says of itself, its card in full.")
    async def card(self, text: str) -> None:
        request = protocol.ModelsCard(id=0, model=_named(text))
        card = await self._dialogue.client.ask(request, protocol.ModelCard)
        about = f"{card.info.family}, {card.info.n_parameters:,} parameters, {card.info.size_bytes:,} bytes"
        self._speaker.say(f"{card.info.name}: {about}, in {card.info.path}")
        for line in card.card.splitlines():
            self._speaker.say(line)

    @command("verify", arguments="MODEL", help="Compare every file of a checkpoint with its manifest.")
    async def verify(self, text: str) -> None:
        request = protocol.ModelsVerify(id=0, model=_named(text))
        found = await self._followed(request, protocol.ModelVerified)
        if found.problem:
            raise ValueError(found.problem)
        self._speaker.say(f"{text}: every file is as its manifest says; {found.n_files} files.")

    @command("import", arguments="PATH NAME", help="Import a Hugging Face folder or a GGUF file.")
    async def bring(self, text: str) -> None:
        try:
            source, name = shlex.split(text)
        except ValueError:
            raise ValueError("Give a path on the engine's machine and a name: /import ./gpt2 gpt2") from None
        request = protocol.ModelsImport(id=0, source=source, name=name)
        found = await self._followed(request, protocol.ModelImported)
        self._speaker.say(f"{found.info.name} is there: /model {found.info.name} loads it.")

    @command("delete", arguments="MODEL yes", help="Delete a checkpoint of yours; the word yes makes it so.")
    async def delete(self, text: str) -> None:
        name, _, sure = text.rpartition(" ")
        if sure != "yes" or not name:
            raise ValueError(f"This is for good: /delete {_named(text)} yes does it.")
        await self._dialogue.client.ask(protocol.ModelsDelete(id=0, model=name), protocol.Done)
        self._speaker.say(f"{name} is deleted.")

    @command("unload", arguments="MODEL", help="Give back the memory that a loaded model takes.")
    async def unload(self, text: str) -> None:
        request = protocol.ModelUnload(id=0, model=_named(text))
        done = await self._dialogue.client.ask(request, protocol.Done)
        self._speaker.say(f"{text}: {int(done.detail.get('freed', 0)):,} bytes are free again.")

    async def _followed(self, request: protocol.Request, answer: type[Answer]) -> Answer:
        """The one answer to a request that takes a while; Ctrl+C calls it off."""
        part, found, stage = self._dialogue.part, None, ""
        stream = await part.open(request)
        try:
            async for event in stream:
                if isinstance(event, answer):
                    found = event
                elif isinstance(event, protocol.LoadProgress) and event.stage != stage:
                    stage = event.stage
                    self._speaker.note(stage)
        finally:
            await part.settle(stream)
        if found is None:
            raise ValueError("It was called off; nothing was changed.")
        return found


def _named(text: str) -> str:
    if not text:
        raise ValueError("Name a checkpoint; /models lists them.")
    return text
