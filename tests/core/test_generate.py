"""Generation against its slow twin: one lane at a time, no cache, the whole text decoded anew."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.core.models import small_model
from tests.core.test_lane_text import slow
from tests.core.tiny import checkpoint, tokenizer
from tfm.core.checkpoint import Checkpoint
from tfm.core.engine.protocol import Lane
from tfm.core.engine.sessions import PrefixCache
from tfm.core.generate import LaneFinished, TokenEvent, generate
from tfm.core.model import DecoderOnly, EncoderDecoder
from tfm.core.sampling.chain import LaneState, sample
from tfm.core.sampling.settings import NEUTRAL, PRESETS, SamplingSettings

FAMILIES = ("encoder-decoder", "decoder-only")
PROMPTS = ("a man in a blue shirt", "two dogs", "a man in the snow , 1 , 2 .")


def next_logits(c: Checkpoint, source: Sequence[int], ids: Sequence[int]) -> Tensor:
    with torch.inference_mode():
        if isinstance(c.model, EncoderDecoder):
            logits = c.model.forward(torch.tensor([source]), torch.tensor([ids]))
        else:
            assert isinstance(c.model, DecoderOnly)
            logits = c.model.forward(torch.tensor([ids]))
        return logits[:, -1]


def generate_naive(
    c: Checkpoint,
    lane: Lane,
    max_tokens: int,
    stop: tuple[str, ...] = (),
    tuned: dict[int, SamplingSettings] | None = None,
) -> tuple[list[tuple[int, float, float]], str, str]:
    """(token, raw log-probability, final probability) of each, the text, and why it ended."""
    source = [*c.tokenizer.encode(lane.prompt), 2] if c.config.family == "encoder-decoder" else []
    prompt = [] if source else c.tokenizer.encode(lane.prompt)
    tokens, mu, lane_settings = list(lane.prefix), None, lane.settings
    drawn: list[tuple[int, float, float]] = []
    prefix_text = c.tokenizer.decode(tokens)
    while True:
        lane_settings = (tuned or {}).get(len(drawn), lane_settings)
        logits = next_logits(c, source, [1, *prompt, *tokens])
        state = LaneState(lane_settings, lane.seed, len(tokens), [*prompt, *tokens], mu)
        (draw,) = sample(logits, [state])
        mu = draw.mu
        tokens.append(draw.token)
        drawn.append((draw.token, draw.logprob, draw.probability))
        text, stopped = slow(c.tokenizer.decode(tokens), stop, prefix_text)
        if draw.token == c.config.eos_id:
            return drawn, text, "eos"
        if stopped:
            return drawn, text, "stop"
        if len(drawn) == max_tokens or 1 + len(prompt) + len(tokens) > c.config.max_positions:
            return drawn, text, "length"


class Told:
    """The records of one call, sorted by lane."""

    def __init__(self, records: Iterator[TokenEvent | LaneFinished]) -> None:
        self.records = list(records)
        self.tokens: dict[int, list[TokenEvent]] = {}
        self.finished: dict[int, LaneFinished] = {}
        for record in self.records:
            if isinstance(record, LaneFinished):
                assert record.lane not in self.finished
                self.finished[record.lane] = record
            else:
                assert record.lane not in self.finished
                self.tokens.setdefault(record.lane, []).append(record)

    def ids(self, lane: int) -> list[int]:
        return [event.token for event in self.tokens[lane]]


def told(c: Checkpoint, lanes: Sequence[Lane], max_tokens: int = 12, **more: Any) -> Told:
    return Told(generate(c, lanes, max_tokens=max_tokens, **more))


def assert_equal(event: TokenEvent, token: int, logprob: float, probability: float) -> None:
    assert event.token == token
    assert event.logprob == pytest.approx(logprob, abs=1e-5)
    assert event.probability == pytest.approx(probability, abs=1e-5)


MIXED = [
    Lane(prompt=PROMPTS[0], seed=1),
    Lane(prompt=PROMPTS[1], seed=1, settings=PRESETS["llama.cpp"]),
    Lane(prompt=PROMPTS[1], seed=2, settings=SamplingSettings(temperature=0.6, repetition=1.4, presence=0.5)),
    Lane(prompt=PROMPTS[2], seed=3, settings=SamplingSettings(dry_multiplier=2.0, dry_allowed=1, top_k=3)),
    Lane(prompt=PROMPTS[2], seed=4, settings=SamplingSettings(mirostat_tau=4.0)),
    Lane(prompt=PROMPTS[0], seed=5, settings=SamplingSettings(no_repeat_ngram=1), prefix=(270, 280, 290)),
    Lane(prompt=PROMPTS[0], seed=6, settings=PRESETS["greedy"]),
]


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("encoder-decoder", {}),
        ("encoder-decoder", {"norm_position": "post", "scale_embeddings": True}),
        ("decoder-only", {"positions": "rotary", "norm": "rmsnorm", "n_kv_heads": 2, "gated_ff": True}),
        ("decoder-only", {"positions": "learned", "sliding_window": 6}),
    ],
)
def test_the_cached_batch_is_the_naive_lane(family: str, changes: dict[str, Any]) -> None:
    """Lanes of different prompts, lengths and settings, each as if it were alone and had no cache."""
    c = checkpoint(family, seed=2, end=1.5, **changes)
    found = told(c, MIXED, stop=("e", "1 ,"))
    for index, lane in enumerate(MIXED):
        drawn, text, reason = generate_naive(c, lane, 12, ("e", "1 ,"))
        assert len(found.tokens[index]) == len(drawn)
        for position, (event, expected) in enumerate(zip(found.tokens[index], drawn, strict=True)):
            assert_equal(event, *expected)
            assert event.position == len(lane.prefix) + position
        end = found.finished[index]
        assert (end.text, end.reason) == (text, reason)
        assert end.tokens == (*lane.prefix, *(token for token, _, _ in drawn))
        assert end.logprob == pytest.approx(sum(logprob for _, logprob, _ in drawn), abs=1e-4)
        pieces = "".join(event.piece for event in found.tokens[index])
        assert pieces == text[len(c.tokenizer.decode(lane.prefix)) :]
    assert len({end.reason for end in found.finished.values()}) >= 2  # the case is worth its time


@pytest.mark.parametrize("family", FAMILIES)
def test_a_lane_writes_the_same_alone_and_in_a_batch(family: str) -> None:
    c = checkpoint(family, end=1.0)
    together = told(c, MIXED, 16)
    for index, lane in enumerate(MIXED):
        alone = told(c, [lane], 16)
        assert alone.ids(0) == together.ids(index)
        for a, b in zip(alone.tokens[0], together.tokens[index], strict=True):
            assert_equal(a, b.token, b.logprob, b.probability)
            assert a.entropy == pytest.approx(b.entropy, abs=1e-5)
            assert [rival.token for rival in a.top] == [rival.token for rival in b.top]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_writes_the_same_and_another_seed_something_else(family: str) -> None:
    c = checkpoint(family)
    lane = Lane(prompt=PROMPTS[0], seed=7)
    assert told(c, [lane]).records == told(c, [lane]).records
    assert told(c, [lane]).ids(0) != told(c, [Lane(prompt=PROMPTS[0], seed=8)]).ids(0)


def test_lanes_with_one_seed_differ_only_where_their_settings_do() -> None:
    """Equal settings: equal token by token. top_k = vocabulary removes nothing, so it is equal too."""
    c = checkpoint()
    n_vocab = c.config.vocab_size
    different = [NEUTRAL, NEUTRAL, SamplingSettings(top_k=n_vocab), SamplingSettings(temperature=0.2)]
    found = told(c, [Lane(prompt=PROMPTS[0], seed=3, settings=s) for s in different])
    assert found.ids(0) == found.ids(1) == found.ids(2) != found.ids(3)


def test_greedy_lanes_ignore_the_seed() -> None:
    found = told(checkpoint(), [Lane(prompt=PROMPTS[0], seed=s, settings=PRESETS["greedy"]) for s in (1, 2)])
    assert found.ids(0) == found.ids(1)


def watch_batches(c: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[int, ...]]]:
    """Writes down the shape of what each pass of the model is fed with."""
    seen: list[tuple[str, tuple[int, ...]]] = []

    def watch(name: str, inner: Callable[..., Tensor]) -> None:
        def watched(ids: Tensor, *args: Any, **more: Any) -> Tensor:
            seen.append((name, tuple(ids.shape)))
            return inner(ids, *args, **more)

        monkeypatch.setattr(c.model, name, watched)

    watch("decode", c.model.decode)  # type: ignore[arg-type]
    if isinstance(c.model, EncoderDecoder):
        watch("encode", c.model.encode)
    return seen


def test_ended_lanes_leave_the_batch_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    c = checkpoint(end=2.0)
    seen = watch_batches(c, monkeypatch)
    lanes = [Lane(prompt=PROMPTS[0], seed=s) for s in range(8)]
    found = told(c, lanes, 20)
    lengths = [len(found.tokens[lane]) for lane in range(8)]
    assert len(set(lengths)) > 2
    fed = [shape[0] for name, shape in seen if name == "decode"][1:]
    assert fed == [sum(length > step for length in lengths) for step in range(1, max(lengths))]


def test_equal_prompts_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    c = checkpoint()
    seen = watch_batches(c, monkeypatch)
    told(c, [Lane(prompt=p, seed=s) for s in range(3) for p in PROMPTS[:2]], 2)
    assert [shape for name, shape in seen if name == "encode"] == [(2, 9)]
    assert [shape for name, shape in seen if name == "decode"] == [(2, 1), (6, 1)]


@pytest.mark.parametrize("family", FAMILIES)
def test_going_on_from_a_prefix_repeats_what_was_written(family: str) -> None:
    c = checkpoint(family)
    lane = Lane(prompt=PROMPTS[0], seed=11, settings=PRESETS["creative"])
    whole = told(c, [lane], 14, stop=("zz",))
    for keep in (1, 5, 13):
        prefix = tuple(whole.ids(0)[:keep])
        again = told(
            c, [Lane(prompt=PROMPTS[0], seed=11, settings=PRESETS["creative"], prefix=prefix)], 14 - keep
        )
        assert again.ids(0) == whole.ids(0)[keep:]
        assert again.finished[0].tokens == whole.finished[0].tokens
        assert again.finished[0].text == whole.finished[0].text


def test_a_prefix_that_has_ended_leaves_nothing_to_draw() -> None:
    c = checkpoint()
    found = told(c, [Lane(prompt="a man", prefix=(270, 2)), Lane(prompt="a man")], 3)
    assert found.finished[0].reason == "eos" and 0 not in found.tokens
    assert len(found.tokens[1]) == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_retained_prefix_changes_nothing_but_the_work(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    c = checkpoint(family, end=-50.0)
    prefixes = PrefixCache(10**9)
    lane = Lane(prompt=PROMPTS[0], seed=1)
    first = told(c, [lane], 10, prefix_cache=prefixes)
    seen = watch_batches(c, monkeypatch)
    for keep in (10, 6, 3):
        lanes = [Lane(prompt=PROMPTS[0], seed=s, prefix=tuple(first.ids(0)[:keep])) for s in (1, 2)]
        fresh = told(c, lanes, 5)
        seen.clear()
        reused = told(c, lanes, 5, prefix_cache=prefixes)
        assert seen[0][0] == "decode" and seen[0][1] == (1, 1)  # one token is fed, no source is read
        for index in range(2):
            for a, b in zip(fresh.tokens[index], reused.tokens[index], strict=True):
                assert_equal(a, b.token, b.logprob, b.probability)


def test_settings_changed_on_the_way_act_on_the_next_token() -> None:
    c = checkpoint()
    new = SamplingSettings(temperature=0.0)
    steps = iter([None, {1: NEUTRAL}, {0: new, 7: new}, None, None, None])
    lanes = [Lane(prompt=PROMPTS[0], seed=1), Lane(prompt=PROMPTS[1], seed=1)]
    found = told(c, lanes, 6, tuner=lambda: next(steps))
    assert [event.settings_mark for event in found.tokens[0]] == [False, False, True, False, False, False]
    assert [event.settings for event in found.tokens[0]] == [None, None, new, None, None, None]
    assert not any(event.settings_mark for event in found.tokens[1])  # they were what they are already
    drawn, _, _ = generate_naive(c, lanes[0], 6, tuned={2: new})
    assert found.ids(0) == [token for token, _, _ in drawn]
    assert found.tokens[0][2].probability == 1.0


def test_tuned_settings_are_checked() -> None:
    wrong = SamplingSettings(top_p=7.0)
    with pytest.raises(ValueError, match="top_p must lie in"):
        told(checkpoint(), [Lane(prompt="a man")], tuner=lambda: {0: wrong})


def test_stopping_is_asked_for_before_each_step() -> None:
    c, asked = checkpoint(), 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    lanes = [Lane(prompt=p, seed=1) for p in PROMPTS[:2]]
    found = told(c, lanes, 10, should_stop=should_stop)
    full = told(c, lanes, 10)
    for index in range(2):
        assert found.ids(index) == full.ids(index)[:3]
        end = found.finished[index]
        assert (end.reason, end.tokens) == ("cancelled", tuple(found.ids(index)))
        assert end.text == c.tokenizer.decode(end.tokens)
    never = told(c, lanes, should_stop=lambda: True)
    assert not never.tokens and [end.reason for end in never.finished.values()] == ["cancelled"] * 2


def test_the_context_is_a_limit() -> None:
    c = checkpoint("decoder-only", max_positions=12)
    n_prompt = 1 + len(c.tokenizer.encode(PROMPTS[1]))
    found = told(c, [Lane(prompt=PROMPTS[1])], 100)
    assert found.finished[0].reason == "length"
    assert len(found.ids(0)) == 12 - n_prompt + 1  # the last one need not be read
    assert found.finished[0].n_prompt == n_prompt


def test_what_is_reported_adds_up() -> None:
    c = checkpoint()
    settings = SamplingSettings(top_k=5, temperature=0.5)
    for event in told(c, [Lane(prompt=PROMPTS[0], settings=settings)], n_top=8, trace=True).tokens[0]:
        assert len(event.top) == 8
        assert [rival.piece for rival in event.top] == [c.tokenizer.piece(rival.token) for rival in event.top]
        assert [rival.removed_by for rival in event.top] == [""] * 5 + ["top_k"] * 3
        assert sum(rival.final for rival in event.top) == pytest.approx(1.0)
        assert [report.stage for report in event.trace] == ["top_k", "temperature"]
        assert event.trace[0].removed[:3] == tuple(rival.piece for rival in event.top[5:])
        assert math.exp(event.logprob) == pytest.approx(
            next(rival.raw for rival in event.top if rival.token == event.token)
        )
    assert all(not event.top for event in told(c, [Lane(prompt="a man")], n_top=0).tokens[0])


def test_penalties_do_not_see_the_start_token_or_the_source() -> None:
    """All that a translation has repeated is what it has written itself."""
    c = checkpoint(only=(270, 271))
    banned = SamplingSettings(no_repeat_ngram=1)
    source = tokenizer().decode([270])
    assert set(told(c, [Lane(prompt=source, settings=banned)], 2).ids(0)) == {270, 271}


def test_breakers_are_found_inside_of_tokens() -> None:
    c, text = checkpoint("decoder-only"), "ein mann ein mann ein"
    after_ein = c.tokenizer.encode(text)[c.tokenizer.encode(text).index(c.tokenizer.encode("ein")[-1]) + 1]
    wanted = SamplingSettings(
        temperature=0.0, logit_bias={after_ein: 50.0}, dry_multiplier=100.0, dry_allowed=1
    )
    assert told(c, [Lane(prompt=text, settings=wanted)], 1).ids(0) != [after_ein]
    broken = wanted.replace(dry_breakers=("i",))  # " ein" holds one
    assert told(c, [Lane(prompt=text, settings=broken)], 1).ids(0) == [after_ein]


@pytest.mark.parametrize(
    ("lanes", "more", "sentence"),
    [
        ([Lane(prompt="  ")], {}, "the text is empty: there is nothing to translate"),
        ([Lane(prompt="a"), Lane(prompt="")], {}, "the text of lane 1 is empty"),
        ([Lane(prompt="a " * 500)], {}, r"the text has \d{3,} tokens, but this model takes at most 64"),
        ([Lane(prompt="a", prefix=(9999,))], {}, "token id outside of 0.."),
        ([Lane(prompt="a", prefix=(5,) * 64)], {}, "the text has 65 tokens"),
        ([Lane(prompt="a", settings=SamplingSettings(top_p=2.0))], {}, "top_p must lie in"),
        ([Lane(prompt="a", messages=({"role": "user"},))], {}, "only decoder-only models chat"),
        ([Lane(prompt="a")], {"max_tokens": 0}, "max_tokens must be at least 1"),
        ([Lane(prompt="a")], {"stop": ("",)}, "stop string must not be empty"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(
    lanes: list[Lane], more: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        generate(checkpoint(), lanes, **{"max_tokens": 5, **more})


def test_an_encoder_cannot_write() -> None:
    model = small_model("encoder-only", vocab_size=tokenizer().vocab_size, mask_id=3)
    encoder = Checkpoint(model, model.config, tokenizer(), Path("tiny"))
    with pytest.raises(ValueError, match="does not write text"):
        generate(encoder, [Lane(prompt="a")], max_tokens=1)


def test_an_empty_text_can_be_continued_where_there_is_a_start_token() -> None:
    assert len(told(checkpoint("decoder-only"), [Lane(prompt="")], 3).ids(0)) == 3
    with pytest.raises(ValueError, match="no start token"):
        generate(checkpoint("decoder-only", bos_id=None), [Lane(prompt="")], max_tokens=3)


def test_no_lanes_are_no_records() -> None:
    assert told(checkpoint(), []).records == []
