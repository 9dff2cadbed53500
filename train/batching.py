"""Batches of about the same number of tokens, of sentences of about the same length.

The order of the batches is a pure function of (seed, epoch): a resumed run needs to remember only
how many batches of an epoch it has seen. Which process takes which is one of (rank, world size).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tfm.core.config import ModelConfig
from tfm.train.rows import Row

Place = tuple[int, int]  # of a batch: epoch, number within the epoch


@dataclass(frozen=True)
class PairBatch:
    """Sentence pairs, right-padded. Letters: B pairs, S source tokens, T target tokens, N real targets."""

    source_BS: Tensor
    source_mask_BS: Tensor  # True where real
    target_in_BT: Tensor  # start token, then all but the last
    target_mask_BT: Tensor  # True where real
    labels_N: Tensor  # the real tokens to be predicted, row by row

    def to(self, device: torch.device) -> PairBatch:
        return PairBatch(*(getattr(self, field).to(device) for field in self.__dataclass_fields__))


def pad(rows: Sequence[np.ndarray], pad_id: int) -> tuple[Tensor, Tensor]:
    """Rows of ids -> (B, longest) int64 ids and the mask of real ones."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max())[None, :] < lengths[:, None]
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    ids[mask] = np.concatenate(rows)
    return torch.from_numpy(ids), torch.from_numpy(mask)


def collate_pairs(
    sources: Sequence[np.ndarray], targets: Sequence[np.ndarray], config: ModelConfig
) -> PairBatch:
    """Add the end to sources, start and end to targets; shift the targets by one.

    Pads the *embedding* of source </s> too: a source is its tokens, then eos; a target is read as
    (start, t1 .. tn) and predicted as (t1 .. tn, eos).
    """
    end, start = np.array([config.eos_id]), np.array([config.start_id])
    source, source_mask = pad([np.concatenate((row, end)) for row in sources], config.pad_id)
    target_in, target_mask = pad([np.concatenate((start, row)) for row in targets], config.pad_id)
    labels = torch.from_numpy(
        np.concatenate([np.concatenate((row, end)) for row in targets]).astype(np.int64)
    )
    return PairBatch(source, source_mask, target_in, target_mask, labels)


@dataclass(frozen=True)
class RowBatch:
    """Rows for a decoder-only model, right-padded. Letters: B rows, T tokens, N predicted tokens."""

    ids_BT: Tensor  # all but each row's last
    predicted_BT: Tensor  # True where the next token is predicted
    labels_N: Tensor  # those next tokens, row by row

    def to(self, device: torch.device) -> RowBatch:
        return RowBatch(*(getattr(self, field).to(device) for field in self.__dataclass_fields__))


def collate_rows(rows: Sequence[Row], config: ModelConfig) -> RowBatch:
    """Shift by one: each token is asked for the one after it."""
    ids, _ = pad([row.ids for row in rows], config.pad_id)
    predicted, _ = pad([row.predicted for row in rows], 0)
    following = predicted[:, 1:].bool()
    return RowBatch(ids[:, :-1], following, ids[:, 1:][following])


def token_budget_batches(
    source_lengths: np.ndarray, target_lengths: np.ndarray, batch_tokens: int, seed: int, epoch: int
) -> list[np.ndarray]:
    """Indices of each batch of one epoch; every example stands in exactly one batch.

    Examples are shuffled, sorted by length (the shuffle decides among equals), cut so that padded
    target tokens and padded source tokens of a batch stay within ``batch_tokens``, and the batches
    are shuffled. An example longer than the budget is a batch of its own.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(target_lengths))
    order = order[np.lexsort((source_lengths[order], target_lengths[order]))]
    batches, start, longest = [], 0, 0
    for end, index in enumerate(order):
        longest_with = max(longest, int(target_lengths[index]), int(source_lengths[index]))
        if end > start and longest_with * (end - start + 1) > batch_tokens:
            batches.append(order[start:end])
            start, longest_with = end, max(int(target_lengths[index]), int(source_lengths[index]))
        longest = longest_with
    if start < len(order):
        batches.append(order[start:])
    return [batches[i] for i in rng.permutation(len(batches))]


class BatchOrder:
    """Which batches each optimiser step takes, epoch after epoch.

    A step takes ``accumulate`` batches for each process, in turn: process r of W takes numbers r, r + W,
    r + 2W ... of them. So W processes that accumulate A batches take the steps of one that accumulates
    A * W, and every batch of an epoch is taken exactly once. A step may begin in one epoch and end
    in the next; none is smaller than the others.

    The steps of a run stay what they are when it goes on with another number of processes than it was
    ``laid_out_for``: W processes that cannot take whole batches take parts of each.
    """

    def __init__(
        self,
        make_epoch: Callable[[int], list[np.ndarray]],
        accumulate: int,
        rank: int = 0,
        world_size: int = 1,
        laid_out_for: int | None = None,
    ) -> None:
        self._make_epoch = make_epoch
        self._epochs: dict[int, list[np.ndarray]] = {}  # the one that is going on, perhaps the next
        self._rank, self._world_size = rank, world_size
        self.n_batches = accumulate * (world_size if laid_out_for is None else laid_out_for)
        self._n_parts = world_size // math.gcd(self.n_batches, world_size)

    def epoch(self, number: int) -> list[np.ndarray]:
        """All batches of an epoch."""
        if number not in self._epochs:
            self._epochs = {n: made for n, made in self._epochs.items() if n == number - 1}
            self._epochs[number] = self._make_epoch(number)
        return self._epochs[number]

    def step(self, start: Place, left_out: Collection[Place] = ()) -> tuple[list[Place], Place]:
        """The places of the step that begins at ``start``, for all processes, and where the next begins."""
        places: list[Place] = []
        epoch, number = start
        while len(places) < self.n_batches:
            if number >= len(self.epoch(epoch)):
                epoch, number = epoch + 1, 0
            if (epoch, number) not in left_out:
                places.append((epoch, number))
            number += 1
        return places, (epoch, number)

    def share(self, places: Sequence[Place]) -> list[np.ndarray]:
        """The batches of a step, or parts of them, that this process takes: as many as every other.

        A part of a batch that has fewer rows than parts may be empty.
        """
        batches = [self.epoch(epoch)[number] for epoch, number in places]
        parts = [batch[part :: self._n_parts] for batch in batches for part in range(self._n_parts)]
        return parts[self._rank :: self._world_size]
