"""Fill: a line is a text with masks; what may stand in them is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tfm.core.engine import protocol
from tfm.core.sampling.settings import PRESETS
from tfm.tui.gaps import MASK, Gap, GapText
from tfm.tui.plain.commands import command, number
from tfm.tui.plain.part import Part
from tfm.tui.widgets.sampling_panel import Decoding

if TYPE_CHECKING:
    from tfm.tui.plain.dialogue import Dialogue

N_TOP = 9


class Filling(Part):
    NAME = "fill"
    DOES = f"Type a text with {MASK} in it and Enter to fill it."

    def __init__(self, dialogue: Dialogue) -> None:
        super().__init__(dialogue, Decoding(settings=PRESETS["balanced"]))
        self.gaps: GapText | None = None

    async def take(self, text: str) -> None:
        gaps = GapText(text)
        if not gaps.gaps:
            raise ValueError(f"There is no mask in it: write {MASK} where a word is to be found.")
        self.gaps = gaps
        await self._ask(gaps)
        self._say_all(gaps)

    async def _ask(self, gaps: GapText) -> tuple[list[int], protocol.Filled] | None:
        """What may stand in the masks that are open; None: there is none."""
        assert self.decoding is not None
        text, masks = gaps.request()
        if not masks:
            return None
        model = await self.session.ready()
        request = protocol.Fill(
            id=0, model=model.info.name, text=text, n_top=N_TOP,
            settings=self.decoding.settings, seed=self.decoding.seed,
        )  # fmt: skip
        answer = await self.client.ask(request, protocol.Filled)
        if len(answer.masks) != len(masks):
            raise ValueError("The text is too long for the model: not all of its masks were read.")
        gaps.answer(masks, answer.masks)
        return masks, answer

    def _say_all(self, gaps: GapText) -> None:
        self.speaker.say(gaps.text)
        if self.speaker.by_hand:
            for place, gap in enumerate(gaps.gaps, 1):
                self.speaker.say(f"Mask {place}: {_candidates(gap)}")

    @property
    def _text(self) -> GapText:
        if self.gaps is None:
            raise ValueError(f"There is no text yet: type one with {MASK} in it.")
        return self.gaps

    def _mask(self, text: str) -> int:
        return number(text, "A mask", 1, len(self._text.gaps)) - 1

    @command("masks", help="What may stand in each mask.")
    async def masks(self, _text: str) -> None:
        for place, gap in enumerate(self._text.gaps, 1):
            self.speaker.say(f"Mask {place}: {_candidates(gap)}")

    @command("take", arguments="MASK RANK", help="Put the candidate of that rank into a mask.")
    async def take_candidate(self, text: str) -> None:
        mask, _, rank = text.partition(" ")
        place = self._mask(mask)
        candidates = self._text.gaps[place].candidates
        if not candidates:
            raise ValueError("Nothing is known about this mask yet.")
        chosen = candidates[number(rank.strip(), "A rank", 1, len(candidates)) - 1]
        self._text.take(place, chosen)
        await self._ask(self._text)
        self._say_all(self._text)

    @command("open", arguments="[MASK]", help="Take the word out of a mask again; alone: out of all.")
    async def open_mask(self, text: str) -> None:
        for place in [self._mask(text)] if text else range(len(self._text.gaps)):
            self._text.open(place)
        await self._ask(self._text)
        self._say_all(self._text)

    @command("draw", "again", help="Draw a word for each mask, the surest first; again: other words.")
    async def draw(self, _text: str) -> None:
        assert self.decoding is not None
        gaps = self._text
        if any(gap.taken and not gap.by_hand for gap in gaps.gaps):
            self.decoding = msgspec.structs.replace(self.decoding, seed=self.decoding.seed + 1)
        for place, gap in enumerate(gaps.gaps):
            if not gap.by_hand:
                gaps.open(place)
        while (answer := await self._ask(gaps)) is not None:
            masks, filled = answer
            surest = min(range(len(masks)), key=lambda n: gaps.gaps[masks[n]].entropy)
            drawn = filled.masks[surest].drawn
            if drawn is None:
                break
            gaps.take(masks[surest], drawn, by_hand=False)
        self.speaker.say(gaps.text)

    @command("use", help="Make the filled text the text.")
    async def use(self, _text: str) -> None:
        filled = self._text.text
        self.gaps = None
        self.speaker.say(filled)


def _candidates(gap: Gap) -> str:
    told = [f"{n} {c.piece.strip()} {c.raw:.2f}" for n, c in enumerate(gap.candidates, 1)]
    taken = f"taken {gap.taken.piece.strip()}; " if gap.taken else ""
    return taken + ", ".join(told)
