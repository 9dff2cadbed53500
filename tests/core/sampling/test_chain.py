from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.core.sampling import twins
from tests.core.sampling.test_noise import chi_square, reference
from tfm.core.sampling import chain, history, noise
from tfm.core.sampling.chain import Draw, LaneState, sample
from tfm.core.sampling.noise import CHANCE
from tfm.core.sampling.settings import (
    LLAMA_CPP_ORDER,
    NEUTRAL,
    PRESETS,
    STAGES,
    TRANSFORMERS_ORDER,
    SamplingSettings,
    plan,
)

NONE = -math.inf


def logits(n_lanes: int = 1, n_vocab: int = 200, seed: int = 0, spread: float = 3.0) -> Tensor:
    return torch.randn(n_lanes, n_vocab, generator=torch.Generator().manual_seed(seed)) * spread


def one(z: Tensor, settings: SamplingSettings, seed: int = 0, position: int = 0, **more: Any) -> Draw:
    past, mu = more.pop("past", ()), more.pop("mu", None)
    return sample(z, [LaneState(settings, seed, position, past, mu)], **more)[0]


EVERYTHING = SamplingSettings(
    temperature=0.9,
    top_k=60,
    top_p=0.97,
    min_p=0.001,
    typical=0.98,
    top_n_sigma=4.0,
    xtc_chance=0.5,
    xtc_threshold=0.05,
    epsilon=1e-4,
    eta=1e-3,
    repetition=1.2,
    repetition_window=5,
    presence=0.3,
    frequency=0.1,
    dry_multiplier=0.8,
    logit_bias={3: 2.0, 5: -1.0},
    banned=(0, 7),
    no_repeat_ngram=3,
)

changes = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.0, 0.3, 0.8, 1.7]),
        "dynamic_range": st.sampled_from([0.2, 1.0]),
        "dynamic_exponent": st.sampled_from([0.5, 2.0]),
        "top_k": st.integers(1, 30),
        "top_p": st.sampled_from([0.0, 0.3, 0.8, 0.95]),
        "min_p": st.sampled_from([0.02, 0.3]),
        "typical": st.sampled_from([0.2, 0.9]),
        "top_n_sigma": st.sampled_from([0.5, 1.5]),
        "xtc_chance": st.sampled_from([0.5, 1.0]),
        "xtc_threshold": st.sampled_from([0.02, 0.1]),
        "epsilon": st.sampled_from([0.001, 0.05]),
        "eta": st.sampled_from([0.001, 0.05]),
        "repetition": st.sampled_from([0.7, 1.3]),
        "repetition_window": st.integers(1, 4),
        "presence": st.sampled_from([-0.5, 1.0]),
        "frequency": st.sampled_from([-0.5, 1.0]),
        "dry_multiplier": st.sampled_from([0.5, 2.0]),
        "dry_allowed": st.integers(1, 2),
        "mirostat_tau": st.sampled_from([1.0, 3.0]),
        "logit_bias": st.dictionaries(st.integers(0, 11), st.floats(-5, 5), max_size=3),
        "banned": st.lists(st.integers(0, 11), max_size=12, unique=True).map(tuple),
        "no_repeat_ngram": st.integers(1, 3),
        "order": st.one_of(
            st.sampled_from([LLAMA_CPP_ORDER, TRANSFORMERS_ORDER]),
            st.permutations(sorted(STAGES)).flatmap(
                lambda o: st.integers(0, len(o)).map(lambda n: tuple(o[:n]))
            ),
        ),
    },
)


@settings(max_examples=120, deadline=None)
@given(
    changed=st.lists(changes, min_size=1, max_size=3),
    seed=st.integers(0, 1000),
    past=st.lists(st.integers(0, 11), max_size=10),
)
def test_a_batch_of_any_settings_is_the_slow_twin(
    changed: list[dict[str, Any]], seed: int, past: list[int]
) -> None:
    """Tokens, probabilities, what removed each candidate, and mirostat's limit, lane by lane."""
    z = logits(len(changed), 12, seed, 2.0)
    lanes = [LaneState(NEUTRAL.replace(**c), seed, 3 + i, past) for i, c in enumerate(changed)]
    breakers = {4}
    draws = sample(z, lanes, n_top=12, trace=True, breakers=lambda strings: breakers)
    for row, (lane, draw) in enumerate(zip(lanes, draws, strict=True)):
        raw = z[row].double().tolist()
        coin, mu = reference(seed, lane.position, CHANCE), 2 * lane.settings.mirostat_tau
        after = twins.chain(raw, lane.settings, past, coin, mu, breakers)
        final = list(after.values())[-1] if after else raw
        noisy = [
            x - math.log(-math.log(reference(seed, lane.position, token))) for token, x in enumerate(final)
        ]
        assert draw.token == noisy.index(max(noisy))
        assert draw.logprob == pytest.approx(math.log(twins.softmax(raw)[draw.token]))
        assert draw.entropy == pytest.approx(twins.entropy(raw))
        assert draw.probability == pytest.approx(twins.softmax(final)[draw.token])
        assert [rival.token for rival in draw.top] == twins.descending(raw)
        for rival in draw.top:
            gone = [stage for stage, left in after.items() if left[rival.token] == NONE]
            assert rival.removed_by == (gone[0] if gone else "")
            assert rival.raw == pytest.approx(twins.softmax(raw)[rival.token])
            assert rival.final == pytest.approx(twins.softmax(final)[rival.token])
        if "mirostat" in plan(lane.settings):
            at = lane.settings.order.index("mirostat")
            before = after[lane.settings.order[at - 1]] if at else raw
            surprise = -math.log2(twins.softmax(before)[draw.token])
            assert draw.mu == pytest.approx(mu - 0.1 * (surprise - lane.settings.mirostat_tau))
        else:
            assert draw.mu is None


def test_a_lane_draws_the_same_alone_and_in_any_batch() -> None:
    z = logits(6, 3000)
    chosen = [
        EVERYTHING,
        PRESETS["greedy"],
        NEUTRAL,
        PRESETS["llama.cpp"],
        PRESETS["transformers"],
        EVERYTHING,
    ]
    lanes = [LaneState(s, 9, i, [1, 2, 3, 1, 2]) for i, s in enumerate(chosen)]
    together = sample(z, lanes, n_top=4, trace=True)
    alone = [sample(z[i : i + 1], [lane], n_top=4, trace=True)[0] for i, lane in enumerate(lanes)]
    for a, b in zip(together, alone, strict=True):
        assert a.token == b.token
        assert [rival.removed_by for rival in a.top] == [rival.removed_by for rival in b.top]
        assert [(e.stage, e.left, e.removed) for e in a.trace] == [
            (e.stage, e.left, e.removed) for e in b.trace
        ]
        numbers = [(d.logprob, d.entropy, d.probability, *(r.final for r in d.top)) for d in (a, b)]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-12)


@pytest.mark.parametrize("settings", [EVERYTHING, *PRESETS.values()])
def test_moving_candidates_together_changes_nothing(
    settings: SamplingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    z = logits(3, 3000)
    lanes = [LaneState(settings, 1, i, [1, 2, 3, 1, 2]) for i in range(3)]
    compacted = sample(z, lanes, n_top=6, trace=True)
    monkeypatch.setattr(chain, "_COMPACT_FROM", 10**9)
    spread_out = sample(z, lanes, n_top=6, trace=True)
    for a, b in zip(compacted, spread_out, strict=True):
        assert (a.token, a.top[0].removed_by) == (b.token, b.top[0].removed_by)
        assert a.probability == pytest.approx(b.probability, rel=1e-12)
        for effect_a, effect_b in zip(a.trace, b.trace, strict=True):
            assert (effect_a.stage, effect_a.left, effect_a.removed) == (
                effect_b.stage,
                effect_b.left,
                effect_b.removed,
            )


def test_one_seed_and_other_settings_differ_only_where_the_settings_do() -> None:
    """The same noise: a token that survives both truncations and wins the wider one wins the narrower too."""
    for position in range(200):
        z = logits(1, 100, position)
        wide, narrow = one(z, NEUTRAL, 5, position), one(z, SamplingSettings(top_k=30), 5, position)
        kept = set(z[0].topk(30).indices.tolist())
        if wide.token in kept:
            assert narrow.token == wide.token


def test_greedy_is_argmax_and_costs_no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "gumbel", None)
    z = logits(4, 500)
    draws = sample(z, [LaneState(PRESETS["greedy"], 0, 0)] * 4)
    assert [draw.token for draw in draws] == z.argmax(-1).tolist()
    assert [draw.probability for draw in draws] == [1.0] * 4


def test_of_equal_logits_greedy_takes_the_lowest_id() -> None:
    assert one(torch.zeros(1, 300), PRESETS["greedy"]).token == 0


def test_draws_follow_the_final_distribution() -> None:
    z, settings = logits(1, 8, spread=1.0), SamplingSettings(temperature=0.7, top_k=6)
    n = 20_000
    drawn = [d.token for d in sample(z.expand(n, -1), [LaneState(settings, 3, i) for i in range(n)])]
    final = torch.tensor(twins.softmax(twins.temperature(twins.top_k(z[0].double().tolist(), 6), 0.7)))
    counts = torch.bincount(torch.tensor(drawn), minlength=8).double()
    assert counts[final == 0].sum() == 0
    assert abs(chi_square(counts[final > 0], final[final > 0] * n)) < 3.5


def test_mirostat_holds_the_surprise_it_was_asked_for() -> None:
    z, mu, surprises = logits(1, 2000, spread=1.5), None, []
    for position in range(400):
        draw = one(z, SamplingSettings(mirostat_tau=6.0, mirostat_eta=0.1), 1, position, mu=mu)
        mu = draw.mu
        surprises.append(-draw.logprob / math.log(2))
    assert sum(surprises[100:]) / 300 == pytest.approx(6.0, abs=0.1)


def test_a_trace_tells_what_each_stage_did() -> None:
    z = torch.tensor([[0.5, 0.25, 0.125, 0.0625, 0.0625]]).log()
    draw = one(z, SamplingSettings(top_k=4, top_p=0.8, temperature=0.5), trace=True, n_top=5)
    top_k, top_p, temperature = draw.trace
    assert [effect.stage for effect in draw.trace] == ["top_k", "top_p", "temperature"]
    assert (top_k.left, top_k.removed) == (4, (4,))
    assert top_k.mass == pytest.approx(0.9375)
    assert (top_p.left, top_p.removed) == (2, (2, 3))
    assert top_p.mass == pytest.approx(0.75)  # of the raw distribution
    assert top_k.entropy_before == pytest.approx(draw.entropy)
    assert top_p.entropy_before == pytest.approx(top_k.entropy_after)
    assert temperature.entropy_before == pytest.approx(twins.entropy([math.log(2 / 3), math.log(1 / 3)]))
    assert temperature.entropy_after == pytest.approx(twins.entropy([math.log(4 / 5), math.log(1 / 5)]))
    assert [rival.removed_by for rival in draw.top] == ["", "", "top_p", "top_p", "top_k"]
    assert [rival.final for rival in draw.top] == pytest.approx([0.8, 0.2, 0, 0, 0])


def test_a_report_names_at_most_five_removed_tokens_most_probable_first() -> None:
    z = logits(1, 50)
    (effect,) = one(z, SamplingSettings(top_k=3), trace=True).trace
    assert list(effect.removed) == twins.descending(z[0].tolist())[3:8]


def test_one_token_survives_whatever_is_asked() -> None:
    z = logits(1, 20)
    best = int(z.argmax())
    for impossible in (
        SamplingSettings(banned=tuple(range(20))),
        SamplingSettings(epsilon=1.0),
        SamplingSettings(no_repeat_ngram=1),
        SamplingSettings(mirostat_tau=1e-9),
        SamplingSettings(top_p=0.0, min_p=1.0, typical=0.5),
    ):
        assert one(z, impossible, past=list(range(20))).token == best


def test_a_plan_leaves_neutral_stages_out() -> None:
    assert plan(NEUTRAL) == ()
    assert plan(PRESETS["greedy"]) == ("temperature",)
    assert plan(PRESETS["llama.cpp"]) == ("top_k", "top_p", "min_p", "temperature")
    assert plan(SamplingSettings(temperature=0.5, top_k=5, order=TRANSFORMERS_ORDER)) == (
        "temperature",
        "top_k",
    )
    assert plan(SamplingSettings(top_k=5, order=("temperature",))) == ()


def test_dynamic_temperature_replaces_temperature_and_mirostat_replaces_truncation() -> None:
    assert plan(SamplingSettings(temperature=0.5, dynamic_range=0.1)) == ("dynamic_temperature",)
    left = plan(
        SamplingSettings(mirostat_tau=5.0, temperature=0.5, top_k=5, top_p=0.5, min_p=0.1, xtc_chance=1.0)
    )
    assert left == ("temperature", "mirostat")


def test_logits_that_are_no_numbers_are_refused() -> None:
    for bad in (math.nan, math.inf):
        z = logits(2, 10)
        z[1, 3] = bad
        with pytest.raises(ValueError, match="NaN or infinity"):
            sample(z, [LaneState(NEUTRAL, 0, 0)] * 2)


def test_a_bias_on_a_token_that_does_not_exist_is_refused() -> None:
    for wrong in (SamplingSettings(logit_bias={10: 1.0}), SamplingSettings(banned=(-1,))):
        with pytest.raises(ValueError, match=r"names token (10|-1); the vocabulary ends at 9"):
            one(logits(1, 10), wrong)


def test_half_precision_logits_and_removed_tokens_are_fine() -> None:
    z = logits(1, 50).bfloat16()
    z[0, 10:] = NONE
    draw = one(z, EVERYTHING, past=[1, 2], n_top=3, trace=True)
    assert draw.token < 10 and math.isfinite(draw.logprob) and math.isfinite(draw.entropy)


def test_more_candidates_than_tokens_are_all_tokens() -> None:
    assert [r.token for r in one(torch.tensor([[1.0, 3.0, 2.0]]), NEUTRAL, n_top=9).top] == [1, 2, 0]
    assert one(torch.tensor([[1.0]]), EVERYTHING.replace(logit_bias={}, banned=())).token == 0


def test_the_penalties_see_the_window() -> None:
    z = torch.zeros(1, 4)
    settings = SamplingSettings(presence=1.0, repetition_window=1)
    counts = history.counts([1, 2], 1)
    draw = one(z, settings, past=[1, 2], n_top=4)
    assert counts == {2: 1}
    finals = {rival.token: rival.final for rival in draw.top}
    assert finals[1] == finals[0] > finals[2]
