"""What a lane's own past says about its next token: counts, dry penalties, completed n-grams.

A history is the list of token ids that the model has read and written so far on the side it writes on
(the prompt counts for a decoder-only model, the source sentence does not), oldest first, without the
token a decoder is started with.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Mapping, Sequence

_HARSHEST = 1e9  # nats; more would not change what is drawn, and b^(L-A) soon leaves the range of floats


def counts(history: Sequence[int], window: int) -> Mapping[int, int]:
    """How often each token occurs in the last ``window`` tokens; 0: in all of them."""
    return Counter(history[-window:] if window else history)


def dry_penalties(
    history: Sequence[int], multiplier: float, base: float, allowed: int, breakers: Container[int]
) -> dict[int, float]:
    """DRY, "don't repeat yourself" (p-e-w, for text-generation-webui): nats to take off each token.

    A token t is penalised where the history ends in a sequence of L >= ``allowed`` tokens that
    occurred before and was followed by t then: m * b^(L - allowed), for the longest such L. A
    sequence does not reach across a breaker, and a breaker is never penalised.

    Matches are read off the Z-array of the reversed history (Gusfield 1997), in linear time.
    """
    backwards = list(reversed(history))
    reach = next((i for i, token in enumerate(backwards) if token in breakers), len(backwards))
    longest: dict[int, int] = {}
    for start, length in enumerate(_z_array(backwards)):
        length = min(length, reach)
        if start > 0 and length >= allowed and (token := backwards[start - 1]) not in breakers:
            longest[token] = max(longest.get(token, 0), length)
    return {token: _dry(multiplier, base, length - allowed) for token, length in longest.items()}


def completions(history: Sequence[int], n: int) -> set[int]:
    """The tokens that would complete an n-gram that occurred before (Paulus et al. 2018)."""
    opening = tuple(history[len(history) - n + 1 :])
    if len(opening) < n - 1:
        return set()
    starts = range(len(history) - n + 1)
    return {history[i + n - 1] for i in starts if tuple(history[i : i + n - 1]) == opening}


def _dry(multiplier: float, base: float, excess: int) -> float:
    too_much = excess * math.log(base) + math.log(multiplier) > math.log(_HARSHEST)
    return _HARSHEST if too_much else multiplier * base**excess


def _z_array(tokens: Sequence[int]) -> list[int]:
    """z[i] = length of the longest common prefix of ``tokens`` and ``tokens[i:]``; z[0] = 0."""
    z = [0] * len(tokens)
    left = right = 0  # the match that reaches furthest right
    for i in range(1, len(tokens)):
        length = min(z[i - left], right - i) if i < right else 0
        while i + length < len(tokens) and tokens[length] == tokens[i + length]:
            length += 1
        z[i] = length
        if i + length > right:
            left, right = i, i + length
    return z
