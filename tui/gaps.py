"""A text with gaps: which words are masked, what stands in each gap, what else could. No widgets."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from tfm.core.engine.protocol import Candidate, MaskFill

MASK = "[MASK]"
_MARKS = re.compile(r"\[MASK\]|<mask>")
_WORD = re.compile(r"\w+(?:['’]\w+)*")


class Gap(msgspec.Struct, kw_only=True):
    """One mask. ``taken`` is the candidate that stands in it for good, if one does."""

    candidates: tuple[Candidate, ...] = ()  # the likeliest first
    entropy: float = 0.0
    taken: Candidate | None = None
    by_hand: bool = False  # taken by a person and not by a draw
    hidden: str = ""  # the word that stood there before it was masked

    @property
    def shown(self) -> Candidate | None:
        """What a reader sees there: what was taken, else the likeliest."""
        return self.taken or (self.candidates[0] if self.candidates else None)


class GapText:
    """A text cut at its masks: ``parts`` around ``gaps``, one more of the former."""

    def __init__(self, text: str) -> None:
        self.source = text
        self.parts = _MARKS.split(text)
        self.gaps = [Gap() for _ in self.parts[1:]]

    def inherit(self, old: GapText) -> None:
        """Take over what is known of the gaps of the text as it was: those before the place where the two
        differ and those behind it."""
        most = min(len(self.gaps), len(old.gaps))
        before = 0
        while before < most and self.parts[before] == old.parts[before]:
            before += 1
        behind = 0
        while behind < most - before and self.parts[-1 - behind] == old.parts[-1 - behind]:
            behind += 1
        self.gaps[:before] = old.gaps[:before]
        self.gaps[len(self.gaps) - behind :] = old.gaps[len(old.gaps) - behind :]

    def request(self, opened: Sequence[int] = ()) -> tuple[str, list[int]]:
        """The text as the model is asked about it, and which gaps are masks in it: those where nothing
        was taken, and those in ``opened``."""
        text, masks = self.parts[0], []
        for number, gap in enumerate(self.gaps):
            if gap.taken is None or number in opened:
                text += MASK
                masks.append(number)
            else:
                text = put(text, gap.taken.piece)
            text += self.parts[number + 1]
        return text, masks

    def answer(self, asked: Sequence[int], masks: Sequence[MaskFill]) -> None:
        """What the model said about the gaps that were masks."""
        for number, mask in zip(asked, masks, strict=True):
            gap = self.gaps[number]
            gap.candidates, gap.entropy = mask.candidates, mask.entropy

    def take(self, number: int, candidate: Candidate, *, by_hand: bool = True) -> None:
        self.gaps[number].taken, self.gaps[number].by_hand = candidate, by_hand

    def open(self, number: int) -> None:
        self.gaps[number].taken, self.gaps[number].by_hand = None, False

    def filled(self) -> list[tuple[str, int | None]]:
        """The text with a word in each gap: pieces of it, each with the number of the gap it stands in."""
        pieces: list[tuple[str, int | None]] = [(self.parts[0], None)]
        for number, gap in enumerate(self.gaps):
            before = pieces[-1][0]
            word = MASK
            if gap.shown is not None:
                so_far = "".join(piece for piece, _ in pieces)
                kept = so_far.rstrip(" ")
                added = put(so_far, gap.shown.piece)[len(kept) :]
                word = added.lstrip(" ")
                before = before.rstrip(" ") + added[: len(added) - len(word)]
            pieces[-1:] = [(before, None), (word, number), (self.parts[number + 1], None)]
        return [(piece, gap) for piece, gap in pieces if piece]

    @property
    def text(self) -> str:
        """The filled text."""
        return "".join(piece for piece, _ in self.filled())


def put(text: str, piece: str) -> str:
    """A token's piece behind a text, as the tokenizer would write it: it brings its own space, so the
    one that stood before the mask goes; at the beginning of a line there is none."""
    kept = text.rstrip(" ")
    if not kept or kept.endswith("\n"):
        return kept + piece.lstrip(" ")
    return kept + piece


def word_at(line: str, column: int) -> tuple[int, int] | None:
    """Where the word or the mask under (or just before) the cursor begins and ends."""
    for pattern in (_MARKS, _WORD):
        for found in pattern.finditer(line):
            if found.start() <= column <= found.end():
                return found.start(), found.end()
    return None
