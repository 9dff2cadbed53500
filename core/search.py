"""Greedy and beam search over many sources at once.

The score of a hypothesis is logprob / length^alpha, its length counting the token that ends it, the
normalisation of fairseq (``--lenpen``), Marian (``--normalize``) and transformers
(``length_penalty``); alpha 0 is the plain log-probability, 1 the mean over tokens. (Wu et al. 2016
divide by ((5 + length) / 6)^alpha instead.)

At each step a source's W live hypotheses are extended by every token and ranked. Those that end, among
the W best of all, are finished, and the W best of these are kept; the W best that do not end live on. A
source is done once W hypotheses are finished and no live one has, at its present length, a better score
than the best of them; or at its token limit, where live ones count, as they are, only if none has
finished. With W = 1 this is greedy decoding.

Letters: N sources that are going on, W hypotheses of each, R = N W rows, C candidates a row, V vocabulary, T
tokens so far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tfm.core.checkpoint import Checkpoint
from tfm.core.prefill import Prompt, advance, encode_prompts, prefill, writer

Reason = Literal["eos", "length", "cancelled"]

_NONE = float("-inf")
_SPARSE = 0.25  # of a batch's sources; once so many are done, their rows are given up


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One way to go on. ``tokens`` include the one that ended it, if one did."""

    tokens: tuple[int, ...]
    text: str
    logprob: float  # nats
    score: float  # logprob / length^alpha
    finished: bool


@dataclass(frozen=True, slots=True)
class BeamProgress:
    """The hypotheses of one source after ``position`` tokens, finished ones among them, best first."""

    source: int
    position: int
    hypotheses: tuple[Hypothesis, ...]


@dataclass(frozen=True, slots=True)
class BeamFinished:
    """A source is done; all of its hypotheses, best first (the n-best list, n = width)."""

    source: int
    hypotheses: tuple[Hypothesis, ...]
    reason: Reason  # of the best one
    n_prompt: int


def beam_search(
    checkpoint: Checkpoint,
    sources: Sequence[str],
    *,
    width: int = 5,
    length_penalty: float = 1.0,
    max_tokens: int = 128,
    should_stop: Callable[[], bool] | None = None,
) -> Iterator[BeamProgress | BeamFinished]:
    """Search for all sources as one batch, telling of each after every step.

    Args:
        sources: sentences to translate, or texts to continue for a decoder-only model.
        width: hypotheses of each source; 1 is greedy.
        should_stop: asked before each step; True ends all sources as "cancelled".

    Raises:
        ValueError: at once, for a source that is empty or too long and for limits that make no sense.
    """
    _check(width, length_penalty, max_tokens)
    names = ["the text" if len(sources) == 1 else f"text {i + 1}" for i in range(len(sources))]
    prompts = encode_prompts(checkpoint, sources, names, [()] * len(sources))
    limits = [_limit(checkpoint, prompt, max_tokens) for prompt in prompts]
    return _tell(checkpoint, prompts, limits, width, length_penalty, should_stop or (lambda: False))


def translate_batch(
    checkpoint: Checkpoint,
    sentences: Sequence[str],
    *,
    beam: int = 5,
    length_penalty: float = 1.0,
    max_tokens: int | None = None,
    batch_tokens: int = 4096,
    progress: Callable[[int], None] | None = None,
) -> list[str]:
    """The best translation of each sentence, in the order given; of an empty sentence, an empty one.

    Sentences are sorted by length and searched in batches of like length. The model is put in
    evaluation mode meanwhile.

    Args:
        max_tokens: for each translation; None: twice the source's tokens and 16.
        batch_tokens: source tokens x beam that are in work at once, padding included.
        progress: told how many sentences are done, after each batch.

    Raises:
        ValueError: naming the line (counted from 1) that is longer than the model's context.
    """
    _check(beam, length_penalty, 1 if max_tokens is None else max_tokens)
    filled = [i for i, sentence in enumerate(sentences) if sentence.strip()]
    names = [f"line {i + 1}" for i in filled]
    prompts = encode_prompts(checkpoint, [sentences[i] for i in filled], names, [()] * len(filled))
    lengths = [len(prompt.source) + len(prompt.ids) for prompt in prompts]
    translations = [""] * len(sentences)
    n_done = len(sentences) - len(filled)
    model, was_training = checkpoint.model, checkpoint.model.training
    model.eval()
    try:
        for batch in _batches(lengths, max(1, batch_tokens // beam)):
            chosen = [prompts[i] for i in batch]
            limits = [_limit(checkpoint, p, max_tokens or 2 * len(p.source or p.ids) + 16) for p in chosen]
            for i, best in zip(batch, _best(checkpoint, chosen, limits, beam, length_penalty), strict=True):
                translations[filled[i]] = checkpoint.tokenizer.decode(best)
            n_done += len(batch)
            if progress is not None:
                progress(n_done)
    finally:
        model.train(was_training)
    return translations


def _check(width: int, length_penalty: float, max_tokens: int) -> None:
    if width < 1:
        raise ValueError(f"the beam must be at least 1 wide, not {width}")
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, not {max_tokens}")
    if not -10.0 <= length_penalty <= 10.0:
        raise ValueError(f"length_penalty must lie in [-10, 10], not {length_penalty}")


def _limit(checkpoint: Checkpoint, prompt: Prompt, max_tokens: int) -> int:
    return min(max_tokens, checkpoint.config.max_positions + 1 - len(prompt.ids))


def _batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in batches of like length, longest first, each with width x rows <= budget, or one row."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _best(
    checkpoint: Checkpoint, prompts: Sequence[Prompt], limits: Sequence[int], width: int, alpha: float
) -> list[tuple[int, ...]]:
    """Tokens of the best hypothesis of each prompt."""
    search = _Search(checkpoint, prompts, limits, width, alpha)
    while search.going_on:
        search.step()
    return [max(search.finished[i], key=_score).tokens for i in range(len(prompts))]


def _tell(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    limits: Sequence[int],
    width: int,
    alpha: float,
    should_stop: Callable[[], bool],
) -> Iterator[BeamProgress | BeamFinished]:
    def described(source: int, unfinished: str = "") -> tuple[Hypothesis, ...]:
        """The W best so far; ``unfinished`` is taken off the end of texts that go on."""
        found = sorted([*search.finished[source], *search.live(source)], key=_score, reverse=True)[:width]
        texts = [checkpoint.tokenizer.decode(one.tokens) for one in found]
        return tuple(
            Hypothesis(
                tokens=one.tokens,
                text=text if one.finished else text.rstrip(unfinished),
                logprob=one.logprob,
                score=one.score,
                finished=one.finished,
            )
            for one, text in zip(found, texts, strict=True)
        )

    def end(source: int, cancelled: bool) -> BeamFinished:
        prompt, hypotheses = prompts[source], described(source)
        reason: Reason = "eos" if hypotheses and hypotheses[0].finished else "length"
        n_prompt = len(prompt.source or prompt.ids)
        return BeamFinished(source, hypotheses, "cancelled" if cancelled else reason, n_prompt)

    search = _Search(checkpoint, prompts, limits, width, alpha)
    while search.going_on and not should_stop():
        before = list(search.going_on)
        search.step()
        for source in before:
            # The last character of a hypothesis that goes on may not be whole yet.
            yield BeamProgress(source, search.n_tokens, described(source, "\ufffd"))
            if source not in search.going_on:
                yield end(source, cancelled=False)
    for source in search.going_on:
        yield end(source, cancelled=True)


@dataclass(frozen=True, slots=True)
class _Found:
    tokens: tuple[int, ...]
    logprob: float
    score: float
    finished: bool


def _score(found: _Found) -> float:
    return found.score


class _Search:
    """The beams of a batch. ``sources`` maps the N blocks of rows to indices of prompts."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        prompts: Sequence[Prompt],
        limits: Sequence[int],
        width: int,
        alpha: float,
    ) -> None:
        writer(checkpoint)
        self.checkpoint, self.prompts, self.limits = checkpoint, prompts, limits
        self.width, self.alpha = width, alpha
        self.finished: list[list[_Found]] = [[] for _ in prompts]
        self.going_on = list(range(len(prompts)))
        self.sources = list(self.going_on)
        self.n_tokens = 0
        self.stop_ids = torch.tensor(checkpoint.config.stop_ids, dtype=torch.int64, device=checkpoint.device)
        # One hypothesis each to begin with: the empty one.
        self.logprobs_NW = torch.zeros(len(prompts), 1, device=checkpoint.device)
        self.tokens_NWT = torch.zeros(len(prompts), 1, 0, dtype=torch.int64, device=checkpoint.device)

    @torch.inference_mode()
    def step(self) -> None:
        """Extend every hypothesis by one token."""
        if self.n_tokens == 0:
            self.cache, logits_RV = prefill(self.checkpoint, self.prompts, max(self.limits))
        else:
            logits_RV = advance(self.checkpoint, self.cache, self.tokens_NWT[:, :, -1].flatten())
        n_live = self.logprobs_NW.shape[1]
        logprobs_NX, parents_NX, tokens_NX = self._candidates(logits_RV)
        stops_NX = torch.isin(tokens_NX, self.stop_ids)
        self.n_tokens += 1

        ending = stops_NX & (logprobs_NX > _NONE)
        ending[:, self.width :] = False
        for row, rank in ending.nonzero().tolist():
            parent, token = int(parents_NX[row, rank]), int(tokens_NX[row, rank])
            before = self.tokens_NWT[row, parent].tolist()
            logprob = float(logprobs_NX[row, rank])
            found = _Found((*before, token), logprob, logprob / self._norm(self.n_tokens), True)
            self._finish(self.sources[row], found)

        # Candidates are ranked, so the first W that do not end are the best.
        kept_NW = stops_NX.to(torch.uint8).argsort(dim=-1, stable=True)[:, : self.width]
        parents_NW = parents_NX.gather(-1, kept_NW)
        before_NWT = self.tokens_NWT.gather(1, parents_NW[:, :, None].expand(-1, -1, self.n_tokens - 1))
        self.tokens_NWT = torch.cat([before_NWT, tokens_NX.gather(-1, kept_NW)[:, :, None]], dim=-1)
        self.logprobs_NW = logprobs_NX.masked_fill(stops_NX, _NONE).gather(-1, kept_NW)
        self._close()
        if self.going_on:
            self._reorder(parents_NW, n_live)

    def live(self, source: int) -> list[_Found]:
        """The hypotheses of a source that have not ended."""
        if source not in self.going_on:
            return []
        row = self.sources.index(source)
        return [
            _Found(tuple(tokens), logprob, logprob / self._norm(self.n_tokens), False)
            for tokens, logprob in zip(
                self.tokens_NWT[row].tolist(), self.logprobs_NW[row].tolist(), strict=True
            )
            if logprob > _NONE and tokens
        ]

    def _candidates(self, logits_RV: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best continuations of each source, ranked: log-probability, parent, token, (N, X) each.

        Of each row only the best W + number of stop tokens can matter; the softmax is computed
        for these, its denominator for all.
        """
        logits_RV = logits_RV.float()
        n_sources, n_live = self.logprobs_NW.shape
        n_wanted = min(self.width + len(self.stop_ids), logits_RV.shape[1])
        best_RC, tokens_RC = logits_RV.topk(n_wanted)
        best_RC -= logits_RV.logsumexp(-1, keepdim=True)
        if not bool(best_RC[:, 0].isfinite().all()):
            raise ValueError(
                "the model's logits hold NaN or infinity; try precision fp32 or another checkpoint"
            )
        logprobs_NX = (best_RC.view(n_sources, n_live, -1) + self.logprobs_NW[:, :, None]).flatten(1)
        tokens_NX = tokens_RC.view(n_sources, -1)
        missing = max(0, self.width - n_live * n_wanted)  # a vocabulary may be smaller than the beam
        logprobs_NX = F.pad(logprobs_NX, (0, missing), value=_NONE)
        tokens_NX = F.pad(tokens_NX, (0, missing))
        ranked_NX, order_NX = logprobs_NX.sort(dim=-1, descending=True, stable=True)
        parents_NX = (order_NX // n_wanted).clamp_max(n_live - 1)
        return ranked_NX, parents_NX, tokens_NX.gather(-1, order_NX)

    def _norm(self, length: int) -> float:
        return float(length**self.alpha)

    def _finish(self, source: int, found: _Found) -> None:
        if source in self.going_on:
            best = sorted([*self.finished[source], found], key=_score, reverse=True)
            self.finished[source] = best[: self.width]

    def _close(self) -> None:
        """Take out the sources that are done."""
        best_live = (self.logprobs_NW[:, 0] / self._norm(self.n_tokens)).tolist()
        for row, source in enumerate(self.sources):
            if source not in self.going_on:
                continue
            finished, at_limit = self.finished[source], self.n_tokens >= self.limits[source]
            if at_limit and not finished:
                for found in self.live(source):
                    self._finish(source, found)
            complete = len(finished) == self.width and finished[0].score >= best_live[row]
            if at_limit or complete or best_live[row] == _NONE:
                self.going_on.remove(source)

    def _reorder(self, parents_NW: Tensor, n_live_before: int) -> None:
        """Bring the cache in the order of the new hypotheses; give up rows once enough are idle."""
        n_rows = len(self.sources)
        kept = list(range(n_rows))
        if n_rows - len(self.going_on) >= _SPARSE * n_rows:
            kept = [row for row in kept if self.sources[row] in self.going_on]
        parents = parents_NW.tolist()
        lanes = [row * n_live_before + parent for row in kept for parent in parents[row]]
        if len(lanes) > self.cache.n_lanes:
            self.cache = self.cache.select(lanes, kept)
        else:
            self.cache.reorder(lanes, kept if len(kept) < n_rows else None)
        if len(kept) < n_rows:
            self.sources = [self.sources[row] for row in kept]
            self.tokens_NWT, self.logprobs_NW = self.tokens_NWT[kept], self.logprobs_NW[kept]
