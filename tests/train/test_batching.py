"""Batches: each example once, within the budget, the same for the same seed; masks and shift right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.models import small_config, small_model
from tfm.core.model import EncoderDecoder
from tfm.train.batching import BatchOrder, PairBatch, Place, collate_pairs, token_budget_batches
from tfm.train.objectives import Loss
from tfm.train.tasks.scores import head_loss
from tfm.train.tasks.translation import pair_states

LENGTHS = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=80)


@given(lengths=LENGTHS, budget=st.integers(1, 300), seed=st.integers(0, 9), epoch=st.integers(0, 9))
@settings(deadline=None)
def test_each_example_once_within_the_budget(
    lengths: list[tuple[int, int]], budget: int, seed: int, epoch: int
) -> None:
    source, target = np.array(lengths).T
    batches = token_budget_batches(source, target, budget, seed, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * max(source[batch].max(), target[batch].max())
        assert padded <= budget or len(batch) == 1
    again = token_budget_batches(source, target, budget, seed, epoch)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))


def test_epochs_and_seeds_differ() -> None:
    lengths = np.arange(1, 200)
    first = np.concatenate(token_budget_batches(lengths, lengths, 256, 1, 0))
    assert not np.array_equal(first, np.concatenate(token_budget_batches(lengths, lengths, 256, 1, 1)))
    assert not np.array_equal(first, np.concatenate(token_budget_batches(lengths, lengths, 256, 2, 0)))


def epochs(n_batches: int) -> Callable[[int], list[np.ndarray]]:
    return lambda epoch: [np.array([100 * epoch + number]) for number in range(n_batches)]


def steps_of(order: BatchOrder, count: int, left_out: tuple[Place, ...] = ()) -> list[list[int]]:
    at, taken = (0, 0), []
    for _ in range(count):
        places, at = order.step(at, left_out)
        taken.append([int(batch[0]) for batch in order.share(places)])
    return taken


@given(
    n_batches=st.integers(1, 9),
    accumulate=st.integers(1, 4),
    world_size=st.integers(1, 3),
    count=st.integers(1, 12),
)
@settings(deadline=None)
def test_processes_share_the_steps_of_one(
    n_batches: int, accumulate: int, world_size: int, count: int
) -> None:
    alone = steps_of(BatchOrder(epochs(n_batches), accumulate * world_size), count)
    flat = [number for step in alone for number in step]
    assert flat == [100 * (i // n_batches) + i % n_batches for i in range(len(flat))]  # each once an epoch
    assert all(len(step) == accumulate * world_size for step in alone)
    ranks = [
        steps_of(BatchOrder(epochs(n_batches), accumulate, rank, world_size), count)
        for rank in range(world_size)
    ]
    for i, step in enumerate(alone):
        assert all(len(taken[i]) == accumulate for taken in ranks)
        assert sorted(number for taken in ranks for number in taken[i]) == sorted(step)


@given(
    n_batches=st.integers(1, 6),
    accumulate=st.integers(1, 3),
    before=st.integers(1, 4),
    now=st.integers(1, 5),
    count=st.integers(1, 6),
)
@settings(deadline=None)
def test_another_number_of_processes_takes_the_same_steps(
    n_batches: int, accumulate: int, before: int, now: int, count: int
) -> None:
    def make(epoch: int) -> list[np.ndarray]:
        return [
            np.arange(7 * number, 7 * number + 1 + number % 7) + 1000 * epoch for number in range(n_batches)
        ]

    alone = BatchOrder(make, accumulate * before)
    ranks = [BatchOrder(make, accumulate, rank, now, before) for rank in range(now)]
    at = (0, 0)
    for _ in range(count):
        places, after = alone.step(at)
        assert all(order.step(at) == (places, after) for order in ranks)
        shares = [order.share(places) for order in ranks]
        assert len({len(share) for share in shares}) == 1  # none waits for a pass that others do not make
        taken = sorted(int(i) for share in shares for batch in share for i in batch)
        assert taken == sorted(int(i) for batch in alone.share(places) for i in batch)
        at = after


def test_a_step_begins_where_the_last_one_ended_whatever_was_asked_before() -> None:
    order = BatchOrder(epochs(5), 3)
    assert steps_of(order, 4) == [[0, 1, 2], [3, 4, 100], [101, 102, 103], [104, 200, 201]]
    assert order.step((0, 3)) == ([(0, 3), (0, 4), (1, 0)], (1, 1))  # as a run that is resumed asks


def test_what_is_left_out_is_passed_over() -> None:
    order = BatchOrder(epochs(3), 2)
    assert steps_of(order, 3, ((0, 1), (1, 0))) == [[0, 2], [101, 102], [200, 201]]


def test_little_is_padding() -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(5, 40, 3000)
    source = np.maximum(1, target + rng.integers(-3, 4, 3000))
    padded = sum(len(b) * target[b].max() for b in token_budget_batches(source, target, 2048, 0, 0))
    assert target.sum() / padded > 0.95


def test_collated_pairs() -> None:
    config = small_config()
    batch = collate_pairs([np.array([5, 6]), np.array([7])], [np.array([8]), np.array([9, 10])], config)
    assert batch.source_BS.tolist() == [[5, 6, 2], [7, 2, 0]]
    assert batch.source_mask_BS.tolist() == [[True, True, True], [True, True, False]]
    assert batch.target_in_BT.tolist() == [[1, 8, 0], [1, 9, 10]]
    assert batch.labels_N.tolist() == [8, 2, 9, 10, 2]
    assert int(batch.target_mask_BT.sum()) == 5


def pair_loss(model: EncoderDecoder, batch: PairBatch) -> Loss:
    return head_loss(model, pair_states(model, batch), batch.labels_N, 0.1, torch.float32)


def test_loss_ignores_padding() -> None:
    model = small_model()
    assert isinstance(model, EncoderDecoder)
    pairs = [(np.array([5, 6, 7]), np.array([8, 9])), (np.array([10]), np.array([11, 12, 13, 14]))]
    together = collate_pairs([p[0] for p in pairs], [p[1] for p in pairs], model.config)
    whole = pair_loss(model, together)
    alone = [pair_loss(model, collate_pairs([s], [t], model.config)) for s, t in pairs]
    torch.testing.assert_close(whole.total, alone[0].total + alone[1].total, rtol=1e-5, atol=1e-4)
    assert whole.n_tokens == alone[0].n_tokens + alone[1].n_tokens == 8
