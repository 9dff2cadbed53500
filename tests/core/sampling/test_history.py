from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.sampling import twins
from tfm.core.sampling import history

few_tokens = st.lists(st.integers(0, 3), max_size=14)


@settings(max_examples=300, deadline=None)
@given(past=few_tokens, allowed=st.integers(1, 4), breakers=st.sets(st.integers(0, 3), max_size=1))
def test_dry_is_its_quadratic_twin(past: list[int], allowed: int, breakers: set[int]) -> None:
    found = history.dry_penalties(past, 0.8, 1.75, allowed, breakers)
    expected = {token: twins.dry_penalty(past, token, 0.8, 1.75, allowed, breakers) for token in range(4)}
    assert found == pytest.approx({token: nats for token, nats in expected.items() if nats})


# (history, allowed length, breakers, {token: excess length L - A})
DRY = [
    ([1, 2, 3, 9, 1, 2], 2, set(), {3: 0}),
    ([1, 2, 3, 9, 1, 2], 3, set(), {}),  # "1 2" is too short
    ([8, 1, 2, 3, 8, 1, 2, 4, 1, 2], 2, set(), {3: 0, 4: 0}),
    ([8, 1, 2, 3, 4, 8, 1, 2], 2, set(), {3: 1}),  # the longest match counts
    ([5, 5, 5, 5], 1, set(), {5: 2}),  # a run overlaps itself
    ([1, 7, 2, 3, 1, 7, 2], 1, {7}, {3: 0}),  # does not reach across the breaker
    ([1, 2, 3, 1, 2], 1, {2}, {}),  # ends in a breaker
    ([1, 2, 7, 1, 2], 2, {7}, {}),  # would penalise a breaker
    ([], 1, set(), {}),
    ([1], 1, set(), {}),
]


@pytest.mark.parametrize(("past", "allowed", "breakers", "excess"), DRY)
def test_dry_cases_worked_out_by_hand(
    past: list[int], allowed: int, breakers: set[int], excess: dict[int, int]
) -> None:
    found = history.dry_penalties(past, 1.0, 2.0, allowed, breakers)
    assert found == {token: 2.0**length for token, length in excess.items()}


def test_dry_stays_finite_on_a_very_long_repetition() -> None:
    found = history.dry_penalties([1, 2] * 5_000, 1.0, 10.0, 2, set())
    assert found[1] == 1e9


@settings(max_examples=200, deadline=None)
@given(past=few_tokens, n=st.integers(1, 5))
def test_completions_are_those_of_the_slow_twin(past: list[int], n: int) -> None:
    kept = twins.no_repeat_ngram([0.0] * 4 + [-1.0], past, n)
    assert history.completions(past, n) == {token for token in range(4) if kept[token] != 0.0}


def test_counts_look_at_the_window_only() -> None:
    assert history.counts([1, 1, 2, 3], 0) == {1: 2, 2: 1, 3: 1}
    assert history.counts([1, 1, 2, 3], 2) == {2: 1, 3: 1}
    assert history.counts([1], 5) == {1: 1}
