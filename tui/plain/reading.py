"""Lab: a line is a text that a model reads token by token; how likely each was is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfm.core.engine import protocol
from tfm.core.sampling.settings import PRESETS
from tfm.tui.plain.commands import command, number
from tfm.tui.plain.part import Part
from tfm.tui.widgets.sampling_panel import Decoding
from tfm.tui.widgets.token_panel import visible_piece

if TYPE_CHECKING:
    from tfm.tui.plain.dialogue import Dialogue

N_RIVALS = 9


class Reading(Part):
    NAME = "lab"
    DOES = "Type a text and Enter to have the model read it token by token."

    def __init__(self, dialogue: Dialogue) -> None:
        super().__init__(dialogue, Decoding(settings=PRESETS["balanced"]))
        self.given = ""  # what a translation is a translation of
        self._text = ""
        self._scored: protocol.Scored | None = None

    async def take(self, text: str) -> None:
        model = await self.session.ready()
        translates = model.info.family == "encoder-decoder"
        if translates and not self.given:
            raise ValueError("This model translates: /given TEXT says first what the text is to translate.")
        source = self.given if translates else ""
        request = protocol.Score(id=0, model=model.info.name, text=text, source=source)
        self._scored = await self.client.ask(request, protocol.Scored)
        self._text = text
        for place, token in enumerate(self._scored.tokens, 1):
            self.speaker.say(
                f"{place}: {visible_piece(token.piece)}, log p {token.logprob:.2f}, rank {token.rank}, "
                f"entropy {token.entropy:.2f}"
            )
        kind = "pseudo-perplexity" if model.info.family == "encoder-only" else "perplexity"
        self.speaker.note(f"{kind} {self._scored.perplexity:.1f}, log p {self._scored.logprob:.1f}.")

    @command("given", arguments="TEXT", help="For a model that translates: what the text is to translate.")
    async def give(self, text: str) -> None:
        if not text:
            self.speaker.say(self.given or "Nothing is given yet.")
            return
        self.given = text
        self.speaker.note("Now type a translation of it.")

    @command("chain", arguments="[TOKEN]", help="A token's rivals, and what each stage of the chain leaves.")
    async def chain(self, text: str) -> None:
        if self._scored is None or not self._scored.tokens:
            raise ValueError("Nothing was read yet: type a text first.")
        n_tokens = len(self._scored.tokens)
        here = number(text or str(n_tokens), "A token", 1, n_tokens) - 1
        model, decoding = await self.session.ready(), self.decoding
        assert decoding is not None
        if model.info.family == "encoder-only":
            raise ValueError("A model of masks has no chain: /mode fill says what may stand in a mask.")
        pieces = await self.client.ask(
            protocol.Tokenize(id=0, model=model.info.name, texts=(self._text,)), protocol.Tokenized
        )
        ids = tuple(token.token for token in pieces.texts[0])
        lane = protocol.Lane(
            prompt=self.given if model.info.family == "encoder-decoder" else "",
            settings=decoding.settings,
            seed=decoding.seed,
            prefix=ids[: here + max(0, len(ids) - n_tokens)],
        )
        request = protocol.Generate(
            id=0, model=model.info.name, lanes=(lane,), max_tokens=1, n_top=N_RIVALS, trace=True
        )
        drawn = await self.client.ask(request, protocol.Token)
        self.say_rivals([drawn], "1")
        for stage in drawn.trace:
            gone = ", ".join(visible_piece(piece) for piece in stage.removed)
            removed = f", removed {gone}" if gone else ""
            left = f"{stage.left:,} left, mass {stage.mass:.3f}, entropy {stage.entropy_after:.2f}"
            self.speaker.say(f"{stage.stage}: {left}{removed}")
