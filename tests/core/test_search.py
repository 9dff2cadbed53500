"""Search against brute force, against a slow twin without cache or batch, and against greedy generation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.core.test_generate import PROMPTS, next_logits, told
from tests.core.tiny import checkpoint
from tfm.core.checkpoint import Checkpoint
from tfm.core.engine.protocol import Lane
from tfm.core.model import EncoderDecoder
from tfm.core.sampling.settings import PRESETS
from tfm.core.search import BeamFinished, BeamProgress, Hypothesis, beam_search, translate_batch

EOS = 2
FAMILIES = ("encoder-decoder", "decoder-only")
WRITABLE = (EOS, *range(260, 330))  # no single bytes
Scored = tuple[float, float, tuple[int, ...]]  # score, logprob, tokens


def finished(c: Checkpoint, sources: Sequence[str], **more: Any) -> list[BeamFinished]:
    records = [r for r in beam_search(c, sources, **more) if isinstance(r, BeamFinished)]
    return sorted(records, key=lambda record: record.source)


def inputs(c: Checkpoint, text: str) -> tuple[list[int], list[int]]:
    ids = c.tokenizer.encode(text)
    return ([*ids, EOS], [1]) if c.config.family == "encoder-decoder" else ([], [1, *ids])


def logprobs(c: Checkpoint, text: str, tokens: Sequence[int]) -> Tensor:
    source, ids = inputs(c, text)
    return next_logits(c, source, [*ids, *tokens])[0].log_softmax(-1)


def total(c: Checkpoint, text: str, tokens: Sequence[int]) -> float:
    """Log-probability of the tokens, each from a full forward pass."""
    return sum(float(logprobs(c, text, tokens[:i])[token]) for i, token in enumerate(tokens))


def slow_beam(c: Checkpoint, text: str, width: int, alpha: float, max_tokens: int) -> list[Scored]:
    """The rule of tfm.core.search, one source, plain lists, a full forward pass for each hypothesis."""
    live: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    done: list[Scored] = []
    for length in range(1, max_tokens + 1):
        candidates = []
        for logprob, tokens in live:
            step = logprobs(c, text, tokens)
            candidates += [(logprob + float(step[t]), (*tokens, t)) for t in range(len(step))]
        candidates = sorted((x for x in candidates if x[0] > float("-inf")), reverse=True)
        done += [(x[0] / length**alpha, *x) for x in candidates[:width] if x[1][-1] == EOS]
        done = sorted(done, reverse=True)[:width]
        live = [x for x in candidates if x[1][-1] != EOS][:width]
        if not live or (len(done) == width and done[0][0] >= live[0][0] / length**alpha):
            return done
    return done or [(logprob / max_tokens**alpha, logprob, tokens) for logprob, tokens in live]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("width", "alpha"), [(1, 1.0), (2, 1.0), (4, 0.0), (5, 0.6), (5, 2.0)])
def test_the_batch_is_the_slow_search_of_each_source(family: str, width: int, alpha: float) -> None:
    c = checkpoint(family, seed=4, end=1.5)
    found = finished(c, PROMPTS, width=width, length_penalty=alpha, max_tokens=7)
    assert [record.source for record in found] == [0, 1, 2]
    for text, record in zip(PROMPTS, found, strict=True):
        expected = slow_beam(c, text, width, alpha, 7)
        assert [h.tokens for h in record.hypotheses] == [tokens for _, _, tokens in expected]
        for hypothesis, (score, logprob, tokens) in zip(record.hypotheses, expected, strict=True):
            assert hypothesis.logprob == pytest.approx(logprob, abs=1e-4)
            assert hypothesis.score == pytest.approx(score, abs=1e-4)
            assert hypothesis.finished == (tokens[-1] == EOS)
            assert hypothesis.text == c.tokenizer.decode(tokens)
        assert record.reason == ("eos" if record.hypotheses[0].finished else "length")


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_beam_as_wide_as_everything_finds_the_best_of_everything(seed: int, alpha: float) -> None:
    """Three tokens and the end: the 1 + 3 + 9 + 27 sentences of at most four tokens, all enumerated."""
    letters, text = (270, 280, 290), "two dogs"
    c = checkpoint(seed=seed, only=(EOS, *letters))
    whole = [(*tokens, EOS) for n in range(4) for tokens in itertools.product(letters, repeat=n)]
    assert len(whole) == 40
    scored = sorted(((total(c, text, t) / len(t) ** alpha, t) for t in whole), reverse=True)
    (record,) = finished(c, [text], width=121, length_penalty=alpha, max_tokens=4)
    assert {h.tokens for h in record.hypotheses} == set(whole)
    assert record.hypotheses[0].tokens == scored[0][1]
    assert [h.score for h in record.hypotheses] == pytest.approx([score for score, _ in scored], abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_beam_of_one_is_greedy(family: str) -> None:
    c = checkpoint(family, seed=3, end=2.0)
    greedy = told(c, [Lane(prompt=p, settings=PRESETS["greedy"]) for p in PROMPTS], 12)
    for index, record in enumerate(finished(c, PROMPTS, width=1, max_tokens=12)):
        (best,) = record.hypotheses
        assert best.tokens == greedy.finished[index].tokens
        assert best.text == greedy.finished[index].text
        assert best.logprob == pytest.approx(greedy.finished[index].logprob, abs=1e-4)
        assert record.reason == greedy.finished[index].reason
        assert record.n_prompt == greedy.finished[index].n_prompt


# width: tokens and score of the best hypothesis of each source
PINNED: dict[int, list[tuple[tuple[int, ...], float]]] = {
    1: [
        ((2,), -1.75322),
        ((2,), -1.75703),
        ((2,), -1.58998),
    ],
    2: [
        ((303, 2), -1.46031),
        ((2,), -1.75703),
        ((303, 2), -1.47563),
    ],
    5: [
        ((303, 303, 303, 303, 303, 2), -0.77177),
        ((286, 286, 286, 286, 286, 286, 286, 286, 299, 299, 299, 2), -0.55434),
        ((303, 303, 2), -1.19477),
    ],
    10: [
        ((303, 303, 303, 303, 303, 2), -0.77177),
        ((286, 286, 286, 286, 299, 299, 299, 299, 299, 299, 299, 2), -0.54338),
        ((303, 303, 2), -1.19477),
    ],
}


@pytest.mark.parametrize("width", PINNED)
def test_results_are_pinned(width: int) -> None:
    c = checkpoint(seed=2, end=3.0, only=WRITABLE)
    found = finished(c, ["a man", "a ladder .", "snow"], width=width, length_penalty=1.5, max_tokens=12)
    for record, (tokens, score) in zip(found, PINNED[width], strict=True):
        assert record.hypotheses[0].tokens == tokens
        assert record.hypotheses[0].score == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_source_is_searched_the_same_alone_and_in_a_batch(family: str) -> None:
    c = checkpoint(family, seed=4, end=1.5)
    together = finished(c, [*PROMPTS, PROMPTS[0]], width=3, max_tokens=10)
    assert together[0].hypotheses == together[3].hypotheses
    for text, record in zip(PROMPTS, together, strict=False):
        (alone,) = finished(c, [text], width=3, max_tokens=10)
        assert [h.tokens for h in alone.hypotheses] == [h.tokens for h in record.hypotheses]
        for a, b in zip(alone.hypotheses, record.hypotheses, strict=True):
            assert a.score == pytest.approx(b.score, abs=1e-5)


def test_progress_is_told_after_every_step_until_a_source_is_done() -> None:
    c = checkpoint(seed=4, end=1.5)
    records = list(beam_search(c, PROMPTS, width=3, max_tokens=8))
    for source in range(3):
        mine = [r for r in records if r.source == source]
        assert isinstance(mine[-1], BeamFinished)
        steps = [r for r in mine if isinstance(r, BeamProgress)]
        assert [step.position for step in steps] == list(range(1, len(steps) + 1)) and len(mine) == len(
            steps
        ) + 1
        for step in steps:
            scores = [h.score for h in step.hypotheses]
            assert scores == sorted(scores, reverse=True) and 1 <= len(scores) <= 3
            assert all(len(h.tokens) == step.position for h in step.hypotheses if not h.finished)
        assert steps[-1].hypotheses[0].tokens == mine[-1].hypotheses[0].tokens


def test_cancelled_searches_give_what_they_have() -> None:
    c, asked = checkpoint(end=-50.0), itertools.count()
    found = finished(c, PROMPTS[:2], width=2, max_tokens=9, should_stop=lambda: next(asked) == 3)
    for record in found:
        assert record.reason == "cancelled"
        assert [len(h.tokens) for h in record.hypotheses] == [3, 3]
    assert [r.hypotheses for r in finished(c, ["a"], width=2, max_tokens=9, should_stop=lambda: True)] == [()]


def test_a_beam_wider_than_the_vocabulary() -> None:
    c = checkpoint(only=(EOS, 270), vocab_size=330)
    (record,) = finished(c, ["a man"], width=400, max_tokens=3)
    assert {h.tokens for h in record.hypotheses} == {(2,), (270, 2), (270, 270, 2)}


def test_a_longer_length_penalty_prefers_longer_hypotheses() -> None:
    c = checkpoint(seed=7, end=3.0, only=WRITABLE)
    lengths = [
        sum(
            len(r.hypotheses[0].tokens)
            for r in finished(c, PROMPTS, width=5, length_penalty=a, max_tokens=12)
        )
        for a in (-1.0, 0.0, 3.0)
    ]
    assert lengths[0] <= lengths[1] <= lengths[2] and lengths[0] < lengths[2]


# --------------------------------------------------------------------------- translate_batch
SENTENCES = [
    "two dogs",
    "",
    "a man in a blue shirt is standing",
    "snow",
    "   ",
    "a man",
    "two dogs play in the snow .",
]


def one_by_one(c: Checkpoint, sentence: str, **more: Any) -> str:
    limit = 2 * (len(c.tokenizer.encode(sentence)) + 1) + 16
    return finished(c, [sentence], **{"max_tokens": limit, **more})[0].hypotheses[0].text


@pytest.mark.parametrize("batch_tokens", [1, 60, 4096])
@pytest.mark.parametrize("beam", [1, 4])
def test_translations_are_those_of_single_searches_in_order(beam: int, batch_tokens: int) -> None:
    c = checkpoint(seed=7, end=3.0, only=WRITABLE)
    expected = [one_by_one(c, s, width=beam) if s.strip() else "" for s in SENTENCES]
    assert translate_batch(c, SENTENCES, beam=beam, batch_tokens=batch_tokens) == expected


def test_translation_tells_its_progress_and_leaves_the_model_as_it_was() -> None:
    c = checkpoint(dropout=0.5)
    done: list[int] = []
    c.model.train()
    first = translate_batch(c, SENTENCES, beam=2, max_tokens=5, batch_tokens=40, progress=done.append)
    assert c.model.training
    assert first == translate_batch(c, SENTENCES, beam=2, max_tokens=5)  # no dropout meanwhile
    assert done == sorted(done) and len(done) > 1 and done[-1] == len(SENTENCES)


def test_nothing_to_translate() -> None:
    assert translate_batch(checkpoint(), []) == []
    assert translate_batch(checkpoint(), ["", " "]) == ["", ""]


DIFFERENT = ["a man", "two dogs", "snow", "play in the snow", "a ladder .", "1 , 2", "mann", "blue shirt"]


def test_done_sources_leave_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    c = checkpoint(seed=7, end=3.0, only=WRITABLE)
    assert isinstance(c.model, EncoderDecoder)
    inner, rows = c.model.decode, list[int]()

    def watched(ids: Tensor, **more: Any) -> Tensor:
        rows.append(len(ids))
        return inner(ids, **more)

    monkeypatch.setattr(c.model, "decode", watched)
    lengths = [len(r.hypotheses[0].tokens) for r in finished(c, DIFFERENT, width=1, max_tokens=30)]
    assert len(set(lengths)) > 2
    for step, n_rows in enumerate(rows):
        going_on = sum(length > step for length in lengths)
        assert going_on <= n_rows < max(going_on / 0.75, going_on + 1)


def test_scores_are_sums_of_what_the_model_says() -> None:
    c = checkpoint(seed=5, end=1.0)
    (record,) = finished(c, [PROMPTS[0]], width=4, max_tokens=8, length_penalty=0.7)
    best: Hypothesis
    for best in record.hypotheses:
        assert best.logprob == pytest.approx(total(c, PROMPTS[0], best.tokens), abs=1e-4)
        assert best.score == pytest.approx(best.logprob / len(best.tokens) ** 0.7)


def test_limits_keep_within_the_context() -> None:
    c = checkpoint("decoder-only", end=-50.0, max_positions=12)
    n_prompt = len(c.tokenizer.encode(PROMPTS[1])) + 1
    (record,) = finished(c, [PROMPTS[1]], width=2, max_tokens=100)
    assert [len(h.tokens) for h in record.hypotheses] == [13 - n_prompt] * 2
    assert record.reason == "length"


def test_sources_with_limits_of_their_own() -> None:
    """Four sources are done after one step and the fifth, with five hypotheses, takes all of their rows."""
    c = checkpoint("decoder-only", seed=4, end=-50.0, max_positions=16)
    long, short = "a man in a blue shirt is standing on a", "two dogs"
    assert len(c.tokenizer.encode(long)) == 15
    together = finished(c, [long, long, short, long, long], width=5, max_tokens=9)
    assert [len(record.hypotheses[0].tokens) for record in together] == [1, 1, 9, 1, 1]
    for text, record in zip((long, short), (together[0], together[2]), strict=True):
        (alone,) = finished(c, [text], width=5, max_tokens=9)
        assert [h.tokens for h in alone.hypotheses] == [h.tokens for h in record.hypotheses]


def test_what_makes_no_sense_is_refused() -> None:
    c = checkpoint()
    for more, sentence in (
        ({"width": 0}, "beam must be at least 1"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"length_penalty": float("nan")}, "length_penalty must lie in"),
    ):
        with pytest.raises(ValueError, match=sentence):
            beam_search(c, ["a"], **more)
    with pytest.raises(ValueError, match="text 2 is empty"):
        beam_search(c, ["a", ""])
    with pytest.raises(ValueError, match=r"line 3 has \d+ tokens, but this model takes at most 64"):
        translate_batch(c, ["a", "", "a " * 100])


def test_logits_that_are_no_numbers_are_refused() -> None:
    c = checkpoint()
    assert isinstance(c.model, EncoderDecoder) and c.model.head.bias is not None
    with torch.no_grad():
        c.model.head.bias[5] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinity"):
        translate_batch(c, ["a man"])


def test_the_logits_of_half_precision_models_are_searched_in_single_precision() -> None:
    c = checkpoint(seed=4)
    c.model.bfloat16()
    assert len(finished(c, PROMPTS, width=3, max_tokens=4)) == 3
    assert torch.is_grad_enabled()
