"""BPE-dropout: the same word cut into pieces differently each time a model reads it.

A merge that could be made is left out with probability p, so that a word is sometimes read in smaller
pieces (Provilkov et al. 2020). The model sees how words are composed, and a small corpus looks larger.
Only training reads text so; what is translated is cut as ever.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
import torch

from tfm.core.tokenizer import Tokenizer

VARIANTS = 16  # ways to cut each word that are drawn from; as they were drawn, so often they come
_REMEMBERED = 1 << 20  # words whose ways are kept in memory

Word = tuple[int, ...]  # the pieces that it is cut into without dropout


class WordNumbers:
    """Numbers for the words of a corpus, in the order of their first appearance."""

    def __init__(self) -> None:
        self._number: dict[Word, int] = {}

    def of(self, row: Sequence[Word]) -> list[int]:
        return [self._number.setdefault(word, len(self._number)) for word in row]

    @property
    def words(self) -> list[Word]:
        return list(self._number)


class BpeDropout:
    """Rows of word numbers -> rows of token ids, cut at random.

    The ways to cut a word depend on the seed and the word; which of them is taken comes from torch's
    generator, as the model's own dropout does, and so resumes as exactly.
    """

    def __init__(
        self, tokenizer: Tokenizer, words: Sequence[np.ndarray], probability: float, seed: int
    ) -> None:
        """Raises ValueError where the tokenizer is not byte-pair encoding."""
        self._merges, self._id_of = _merges(tokenizer)
        self._piece_of = {index: piece for piece, index in self._id_of.items()}
        self._words, self._probability, self._seed = words, probability, seed
        self._known: dict[int, list[np.ndarray]] = {}

    def rows(
        self, numbers: Iterable[np.ndarray], otherwise: Iterable[np.ndarray], limit: int
    ) -> list[np.ndarray]:
        """Each row cut anew; one that would be longer than ``limit`` tokens is the row in ``otherwise``."""
        made = []
        for row, plain in zip(numbers, otherwise, strict=True):
            choices = torch.randint(VARIANTS, (len(row),)).tolist()
            ids = np.concatenate([self._variants(int(n))[k] for n, k in zip(row, choices, strict=True)])
            made.append(ids if len(ids) <= limit else plain)
        return made

    def _variants(self, number: int) -> list[np.ndarray]:
        found = self._known.get(number)
        if found is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            word = self._words[number]
            rng = random.Random(f"{self._seed} {word.tolist()}")
            found = [self._cut(word, rng) for _ in range(VARIANTS)]
            self._known[number] = found
        return found

    def _cut(self, word: np.ndarray, rng: random.Random) -> np.ndarray:
        pieces = list("".join(self._piece_of[int(index)] for index in word))
        while len(pieces) > 1:
            possible = [
                (rank, at)
                for at in range(len(pieces) - 1)
                if (rank := self._merges.get((pieces[at], pieces[at + 1]))) is not None
                and rng.random() >= self._probability
            ]
            if not possible:
                break
            _, at = min(possible)
            pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
        return np.array([self._id_of[piece] for piece in pieces], dtype=word.dtype)


def _merges(tokenizer: Tokenizer) -> tuple[dict[tuple[str, str], int], dict[str, int]]:
    """The rank of every merge, first to be made first, and the id of every piece."""
    model = msgspec.json.decode(tokenizer.to_json())["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback") or model.get("end_of_word_suffix"):
        raise ValueError("data.bpe_dropout needs a byte-level BPE tokenizer, such as a run trains for itself")
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    return {(left, right): rank for rank, (left, right) in enumerate(merges)}, model["vocab"]
