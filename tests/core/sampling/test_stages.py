"""Each stage against its slow twin, against cases worked out by hand, and for what must always hold."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.core.sampling import twins
from tfm.core.sampling import stages

NONE = -math.inf
Stage = Callable[[Tensor, Tensor], Tensor]
Twin = Callable[[list[float], float], list[float]]

# name: (stage, twin, neutral value, some values)
TRUNCATING: dict[str, tuple[Stage, Twin, float, list[float]]] = {
    "top_k": (stages.top_k, lambda z, k: twins.top_k(z, int(k)), 0, [1, 2, 3, 7, 1000]),
    "top_p": (stages.top_p, twins.top_p, 1.0, [0.0, 0.1, 0.5, 0.9, 0.999]),
    "min_p": (stages.min_p, twins.min_p, 0.0, [0.01, 0.1, 0.5, 1.0]),
    "typical": (stages.typical, twins.typical, 1.0, [0.0, 0.2, 0.5, 0.95]),
    "top_n_sigma": (stages.top_n_sigma, twins.top_n_sigma, 0.0, [0.1, 0.5, 1.0, 2.0]),
    "epsilon": (stages.epsilon, twins.epsilon, 0.0, [0.001, 0.05, 0.3, 1.0]),
    "eta": (stages.eta, twins.eta, 0.0, [0.001, 0.05, 0.3, 1.0]),
    "mirostat": (stages.mirostat, twins.mirostat, 1e4, [0.0, 0.5, 2.0, 5.0]),
    "xtc": (
        lambda z, t: stages.xtc(z, 0.0, 1.0, t),
        lambda z, t: twins.xtc(z, 0.0, 1.0, t),
        1.1,
        [0.0, 0.05, 0.2, 0.6],
    ),
}
SCALING: dict[str, tuple[Stage, Twin, float, list[float]]] = {
    "temperature": (stages.temperature, twins.temperature, 1.0, [0.0, 0.5, 2.0, 10.0]),
    "dynamic_temperature": (
        lambda z, t: stages.dynamic_temperature(z, t, 0.6, 1.5),
        lambda z, t: twins.dynamic_temperature(z, t, 0.6, 1.5),
        math.nan,
        [0.0, 0.6, 1.0, 3.0],
    ),
}
ALL = TRUNCATING | SCALING

# Eighths of small integers: many ties, and sums that come out even.
tied = st.integers(-40, 40).map(lambda n: n / 8)
distinct = st.floats(-15, 15, width=32)
some_logits = st.one_of(
    st.lists(tied, min_size=1, max_size=40),
    st.lists(distinct, min_size=1, max_size=40),
    st.lists(st.one_of(tied, st.just(NONE)), min_size=1, max_size=40).filter(lambda z: max(z) > NONE),
)


def run(stage: Stage, z: Sequence[float], value: float) -> list[float]:
    before = torch.tensor([z], dtype=torch.float64)
    after = stages.keep_one(before, stage(before, torch.tensor([[value]], dtype=torch.float64)))
    out: list[float] = after[0].tolist()
    return out


def survivors(z: Sequence[float]) -> set[int]:
    return {i for i, x in enumerate(z) if x > NONE}


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=60, deadline=None)
@given(z=some_logits, data=st.data())
def test_a_stage_does_what_its_slow_twin_does(name: str, z: list[float], data: st.DataObject) -> None:
    stage, twin, neutral, values = ALL[name]
    value = data.draw(st.sampled_from([*values, *([] if math.isnan(neutral) else [neutral])]))
    assert run(stage, z, value) == pytest.approx(twin(z, value), rel=1e-9)


@pytest.mark.parametrize("name", TRUNCATING)
@settings(max_examples=40, deadline=None)
@given(z=some_logits, data=st.data())
def test_truncation_only_removes_and_never_everything(name: str, z: list[float], data: st.DataObject) -> None:
    stage, _, neutral, values = TRUNCATING[name]
    after = run(stage, z, data.draw(st.sampled_from(values)))
    assert survivors(after)
    assert all(y in (x, NONE) for x, y in zip(z, after, strict=True))
    assert run(stage, z, neutral) == z


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=40, deadline=None)
@given(z=st.lists(distinct, min_size=2, max_size=20, unique=True), data=st.data())
def test_names_of_tokens_do_not_matter(name: str, z: list[float], data: st.DataObject) -> None:
    """Without ties, renumbering the tokens renumbers the outcome and changes nothing else."""
    stage, _, _, values = ALL[name]
    value, order = data.draw(st.sampled_from(values)), data.draw(st.permutations(range(len(z))))
    gaps = sorted(z)
    if min(b - a for a, b in itertools.pairwise(gaps)) < 1e-6:
        return  # as good as a tie
    moved = run(stage, [z[i] for i in order], value)
    assert moved == pytest.approx([run(stage, z, value)[i] for i in order], rel=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_lanes_of_a_batch_have_values_of_their_own(name: str) -> None:
    stage, _, neutral, values = ALL[name]
    chosen = [*values, *([] if math.isnan(neutral) else [neutral])]
    z = torch.randn(len(chosen), 300, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3
    column = torch.tensor(chosen, dtype=torch.float64)[:, None]
    together = stages.keep_one(z, stage(z, column))
    alone = [
        stages.keep_one(z[i : i + 1], stage(z[i : i + 1], column[i : i + 1])) for i in range(len(chosen))
    ]
    assert torch.equal(together, torch.cat(alone))


def logs(*probabilities: float) -> list[float]:
    return [math.log(p) for p in probabilities]


# (stage, value, probabilities, indices that must survive), worked out by hand
CASES = [
    ("top_k", 2, (0.1, 0.4, 0.2, 0.3), {1, 3}),
    ("top_k", 2, (0.3, 0.2, 0.3, 0.2), {0, 2}),
    ("top_k", 1, (0.25, 0.25, 0.25, 0.25), {0}),  # a tie: the lower id
    ("top_k", 3, (0.1, 0.4, 0.4, 0.1), {0, 1, 2}),
    ("top_p", 0.7, (0.1, 0.4, 0.2, 0.3), {1, 3}),  # reached exactly: enough
    ("top_p", 0.71, (0.1, 0.4, 0.2, 0.3), {1, 2, 3}),
    ("top_p", 0.0, (0.1, 0.4, 0.2, 0.3), {1}),
    ("top_p", 0.3, (0.1,) * 10, {0, 1, 2}),  # although 0.1 + 0.1 + 0.1 is not 0.3 in floats
    ("min_p", 0.5, (0.1, 0.4, 0.2, 0.3), {1, 2, 3}),  # on the border: kept
    ("min_p", 1.0, (0.1, 0.45, 0.45), {1, 2}),
    ("typical", 0.5, (0.9, 0.05, 0.05), {0}),
    ("typical", 0.3, (0.5, 0.25, 0.125, 0.125), {1, 0}),  # H = 1.75 bits: surprises 1, 2, 3, 3; 2 is nearest
    ("typical", 0.25, (0.5, 0.25, 0.125, 0.125), {1}),  # and the most probable token may go
    ("epsilon", 0.2, (0.1, 0.4, 0.2, 0.3), {1, 2, 3}),
    ("epsilon", 0.5, (0.1, 0.4, 0.2, 0.3), {1}),  # none is left: the most probable one
    ("eta", 0.25, (0.25,) * 4, {0, 1, 2, 3}),  # sqrt(e) exp(-H) = 1/8 < e
    ("eta", 0.25, (0.97, 0.01, 0.01, 0.01), {0}),
    ("xtc", 0.2, (0.1, 0.4, 0.2, 0.3), {0, 2}),  # a token at the threshold counts as a top choice
    ("xtc", 0.35, (0.1, 0.4, 0.2, 0.3), {0, 1, 2, 3}),  # only one: nothing happens
    ("xtc", 0.3, (0.1, 0.3, 0.3, 0.3), {0, 3}),  # a tie: the last in order is the least likely
    ("mirostat", 2.0, (0.5, 0.25, 0.125, 0.125), {0, 1}),  # on the border: kept
    ("mirostat", 0.5, (0.5, 0.25, 0.125, 0.125), {0}),
]


@pytest.mark.parametrize(("name", "value", "probabilities", "left"), CASES)
def test_cases_worked_out_by_hand(
    name: str, value: float, probabilities: tuple[float, ...], left: set[int]
) -> None:
    assert survivors(run(TRUNCATING[name][0], logs(*probabilities), value)) == left


def test_top_n_sigma_uses_the_population_deviation_of_what_is_left() -> None:
    z = [4.0, 2.0, 0.0, NONE]  # sigma = sqrt(8/3) = 1.633; with n - 1 it would be 2 and keep the 2.0
    assert survivors(run(stages.top_n_sigma, z, 1.0)) == {0}
    assert survivors(run(stages.top_n_sigma, z, 1.25)) == {0, 1}


def test_temperature_zero_keeps_the_first_of_the_best() -> None:
    assert survivors(run(stages.temperature, [1.0, 3.0, 3.0], 0.0)) == {1}
    assert run(stages.temperature, [1.0, 3.0], 1e-30) == [NONE, 3.0]  # too cold for a division


def test_dynamic_temperature_moves_between_its_ends() -> None:
    sure, torn = [0.0, -200.0], [0.0, 0.0]
    assert run(lambda z, t: stages.dynamic_temperature(z, t, 0.5, 1.0), sure, 1.0) == [0.0, -400.0]  # T = 0.5
    one = [5.0, NONE]
    assert run(lambda z, t: stages.dynamic_temperature(z, t, 0.5, 1.0), one, 1.0) == [10.0, NONE]
    z = torch.tensor([torn]) + torch.tensor([3.0])
    assert stages.dynamic_temperature(z.double(), 1.0, 0.5, 1.0).tolist() == [[2.0, 2.0]]  # T = 1.5


def test_xtc_happens_where_the_coin_falls_below_the_chance() -> None:
    z = torch.tensor([logs(0.5, 0.4, 0.1)], dtype=torch.float64)
    for coin, acts in ((0.29, True), (0.3, False), (0.9, False)):
        assert (survivors(stages.xtc(z, coin, 0.3, 0.2)[0].tolist()) == {1, 2}) is acts


@given(z=st.lists(tied, min_size=1, max_size=30), k=st.integers(1, 10), t=st.sampled_from([0.25, 2.0]))
def test_stages_that_commute(z: list[float], k: int, t: float) -> None:
    def both(first: Stage, a: float, second: Stage, b: float) -> list[float]:
        return run(second, run(first, z, a), b)

    assert both(stages.top_k, k, stages.temperature, t) == both(stages.temperature, t, stages.top_k, k)
    assert survivors(both(stages.top_n_sigma, 1.0, stages.temperature, t)) == survivors(
        both(stages.temperature, t, stages.top_n_sigma, 1.0)
    )
    assert both(stages.top_k, k, stages.top_k, 4) == run(stages.top_k, z, min(k, 4))
    assert both(stages.min_p, 0.1, stages.top_k, k) == both(stages.top_k, k, stages.min_p, 0.1)


def test_stages_that_do_not_commute() -> None:
    """Why the order is a setting: top-p after a high temperature lets more tokens in."""
    z = logs(0.7, 0.2, 0.06, 0.04)
    assert survivors(run(stages.temperature, run(stages.top_p, z, 0.9), 5.0)) == {0, 1}
    assert survivors(run(stages.top_p, run(stages.temperature, z, 5.0), 0.9)) == {0, 1, 2, 3}


def test_top_p_is_right_however_long_its_prefix() -> None:
    z = torch.randn(3, 5000, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * torch.tensor(
        [[0.1], [1.0], [6.0]], dtype=torch.float64
    )
    for p in (0.01, 0.5, 0.99, 0.999999):
        after = stages.top_p(z, p)
        for row in range(3):
            assert survivors(after[row].tolist()) == survivors(twins.top_p(z[row].tolist(), p))


@settings(max_examples=60, deadline=None)
@given(
    z=some_logits,
    seen=st.lists(st.integers(0, 39), max_size=12),
    r=st.sampled_from([0.5, 1.0, 1.3]),
    a=st.sampled_from([-1.0, 0.0, 0.5]),
    f=st.sampled_from([-0.25, 0.0, 0.5]),
)
def test_penalties_do_what_their_slow_twins_do(
    z: list[float], seen: list[int], r: float, a: float, f: float
) -> None:
    z_BK = torch.tensor([z], dtype=torch.float64)
    counts = torch.tensor([[seen.count(i) for i in range(len(z))]], dtype=torch.float64)
    assert stages.repetition(z_BK, counts, r)[0].tolist() == twins.repetition(z, seen, r)
    assert stages.presence_frequency(z_BK, counts, a, f)[0].tolist() == pytest.approx(
        twins.presence_frequency(z, seen, a, f)
    )


def test_repetition_lowers_both_kinds_of_logits() -> None:
    z, counts = torch.tensor([[2.0, -2.0, 2.0, 0.0]]), torch.tensor([[1, 3, 0, 1]])
    assert stages.repetition(z, counts, 2.0).tolist() == [[1.0, -4.0, 2.0, 0.0]]
