"""Marks: where in a text other settings began, or a token was put there by hand. Pure data, no widgets."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tfm.core.engine.protocol import Token
from tfm.core.sampling.settings import SamplingSettings
from tfm.tui import chain

EXCERPT = 24  # characters that tell where a mark stands


class Mark(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something happened in front of a token of a reply."""

    at: int  # which of its tokens, the first is 0
    char: int = 0  # where in its text that token begins
    settings: SamplingSettings | None = None  # what it was written under from here on, where that changed
    by_hand: bool = False  # a person chose this token


def in_force(settings: SamplingSettings, marks: Sequence[Mark]) -> SamplingSettings:
    """The settings after these marks of a text that was begun under ``settings``."""
    return next((mark.settings for mark in reversed(marks) if mark.settings is not None), settings)


def meaning(settings: SamplingSettings, marks: Sequence[Mark], number: int) -> str:
    """What one of a text's marks says: ``temperature 0.70 → 0.90 from here``."""
    mark = marks[number]
    told = ["taken by hand"] if mark.by_hand else []
    if mark.settings is not None:
        what = ", ".join(chain.changes(in_force(settings, marks[:number]), mark.settings))
        told += [f"{what} from here"] if what else []
    return " · ".join(told)


def of_tokens(tokens: Sequence[Token]) -> tuple[Mark, ...]:
    """The marks of tokens as the engine told them."""
    marks, char = [], 0
    for index, token in enumerate(tokens):
        if token.settings is not None:
            marks.append(Mark(at=index, char=char, settings=token.settings))
        char += len(token.piece)
    return tuple(marks)


def told_with_places(settings: SamplingSettings, marks: Sequence[Mark], text: str) -> tuple[str, ...]:
    """All marks of a text, a line each, with the words that they stand before."""
    told = []
    for number, mark in enumerate(marks):
        words = " ".join(text[mark.char :].split())
        words = words if len(words) <= EXCERPT else f"{words[:EXCERPT]}…"
        told.append(f"{meaning(settings, marks, number)}: token {mark.at + 1}, “{words}”")
    return tuple(told)
