"""Batches: each example once, within the budget, the same for the same seed; masks and shift right."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.models import small_config, small_model
from tfm.core.model import EncoderDecoder
from tfm.train.batching import collate_pairs, token_budget_batches
from tfm.train.tasks.translation import pair_loss

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


def test_loss_ignores_padding() -> None:
    model = small_model()
    assert isinstance(model, EncoderDecoder)
    pairs = [(np.array([5, 6, 7]), np.array([8, 9])), (np.array([10]), np.array([11, 12, 13, 14]))]
    together = collate_pairs([p[0] for p in pairs], [p[1] for p in pairs], model.config)
    whole = pair_loss(model, together, 0.1, torch.float32)
    alone = [pair_loss(model, collate_pairs([s], [t], model.config), 0.1, torch.float32) for s, t in pairs]
    torch.testing.assert_close(whole.total, alone[0].total + alone[1].total, rtol=1e-5, atol=1e-4)
    assert whole.n_tokens == alone[0].n_tokens + alone[1].n_tokens == 8
