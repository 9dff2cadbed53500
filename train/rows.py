"""Rows that a decoder-only model is trained on: texts packed without a gap, or conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tfm.train.token_store import Rows


@dataclass(frozen=True)
class Row:
    """A sequence for a decoder-only model and which of its tokens the loss counts."""

    ids: np.ndarray
    predicted: np.ndarray  # bool, as long as ids; the first is never predicted


class PackedRows:
    """A stream of tokens cut into rows of ``length``; every token but the first of all is predicted once.

    A row's first token is the last of the row before it, as context only.
    """

    def __init__(self, stream: np.ndarray, length: int) -> None:
        self._stream, self._length = stream, length

    def __len__(self) -> int:
        return max(-(-(len(self._stream) - 1) // (self._length - 1)), 0)

    def __getitem__(self, index: int) -> Row:
        start = range(len(self))[index] * (self._length - 1)
        ids = self._stream[start : start + self._length]
        return Row(ids, np.arange(len(ids)) > 0)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row."""
        lengths = np.full(len(self), self._length, dtype=np.int64)
        if len(lengths):
            lengths[-1] = len(self._stream) - (len(lengths) - 1) * (self._length - 1)
        return lengths

    def head(self, count: int) -> PackedRows:
        """The first rows."""
        return PackedRows(self._stream[: count * (self._length - 1) + 1], self._length)


class MarkedRows:
    """Rows whose predicted tokens are marked one by one: conversations."""

    def __init__(self, ids: Rows, predicted: Rows) -> None:
        self._ids, self._predicted = ids, predicted

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Row:
        return Row(self._ids[index], self._predicted[index].astype(bool))

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row."""
        return self._ids.lengths

    def head(self, count: int) -> MarkedRows:
        """The first rows."""
        return MarkedRows(self._ids[:count], self._predicted[:count])


def dialogue_rows(turns: Sequence[Sequence[int]], length: int, bos: int, eos: int) -> list[Row]:
    """One conversation as ``<s>turn</s>turn</s>...``, cut between turns into rows of at most ``length``.

    Every turn but the first is a reply and is predicted, its end included. A row that goes on with a
    conversation begins with the turn before, as context. A turn that is longer than half a row is cut.
    """
    rows, longest = [], (length - 1) // 2 - 1
    ended = [[*ids[:longest], eos] for ids in turns]
    ids, predicted = [bos, *ended[0]], [False] * (1 + len(ended[0]))
    for before, turn in pairwise(ended):
        if len(ids) + len(turn) > length:
            rows.append(Row(np.array(ids), np.array(predicted)))
            ids, predicted = [bos, *before], [False] * (1 + len(before))
        ids += turn
        predicted += [True] * len(turn)
    rows.append(Row(np.array(ids), np.array(predicted)))
    return rows
