"""What the engine does with a model: each request as a generator, one step a turn.

A generator yields the events of one step and returns the ``Done`` that closes its request. Between
two steps it looks whether it was cancelled or tuned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import msgspec
import torch

from tfm.core import introspect
from tfm.core.engine import protocol
from tfm.core.engine.jobs import Job
from tfm.core.engine.protocol import Done, Event
from tfm.core.engine.sessions import LoadedModel, check_room
from tfm.core.generate import LaneFinished, TokenEvent
from tfm.core.generate import generate as generate_lanes
from tfm.core.search import BeamFinished, BeamProgress, beam_search

Steps = Generator[tuple[Event, ...], None, Done]
"""Yields the events of one step; returns the event that closes the request."""

MAX_LANES = 1024


def begin(job: Job, model: LoadedModel) -> Steps:
    """The generator that serves a request. It does nothing before its first step."""
    operation = OPERATIONS.get(type(job.request))
    if operation is None:
        raise NotImplementedError(f"this engine does not do {type(job.request).__name__}")
    return operation(job.request, job, model)


def step(steps: Steps) -> tuple[Event, ...] | Done:
    """Take one step: its events, or the ``Done`` at the end."""
    with torch.inference_mode():
        try:
            return next(steps)
        except StopIteration as end:
            done: Done = end.value
            return done


def load(request: protocol.ModelLoad, job: Job, model: LoadedModel) -> Steps:
    """The model is there by now; say what it is."""
    yield (
        protocol.ModelLoaded(
            id=request.id,
            info=model.info,
            device=model.device,
            precision=model.precision,
            seconds=job.seconds(),
        ),
    )
    return Done(id=request.id, seconds=job.seconds())


def generate(request: protocol.Generate, job: Job, model: LoadedModel) -> Steps:
    lanes = request.lanes
    if not 1 <= len(lanes) <= MAX_LANES:
        raise ValueError(f"a request has 1 to {MAX_LANES} lanes, not {len(lanes)}")
    return (yield from _write(request, job, model, lanes, request.trace))


def resample(request: protocol.Resample, job: Job, model: LoadedModel) -> Steps:
    lane = request.lane
    if not 0 <= request.keep <= len(lane.prefix):
        raise ValueError(f"keep must lie in [0, {len(lane.prefix)}], the tokens of the prefix")
    by_hand = () if request.token is None else (request.token,)
    lane = msgspec.structs.replace(lane, prefix=lane.prefix[: request.keep] + by_hand)
    return (yield from _write(request, job, model, (lane,), trace=False))


def _write(
    request: protocol.Generate | protocol.Resample,
    job: Job,
    model: LoadedModel,
    lanes: Sequence[protocol.Lane],
    trace: bool,
) -> Steps:
    """Run lanes; a step is one token of each lane that is going on."""
    begun, n_reused, n_tokens = time.perf_counter(), model.prefixes.n_reused, 0
    max_tokens = _within_context(model, request.max_tokens)
    check_room(model, len(lanes), max_tokens)
    records = generate_lanes(
        model.checkpoint,
        lanes,
        max_tokens=max_tokens,
        stop=request.stop,
        n_top=request.n_top,
        trace=trace,
        tuner=lambda: job.take_tuned(len(lanes)),
        should_stop=job.cancelled,
        prefix_cache=model.prefixes,
    )
    for group in _by_step(records, len(lanes)):
        n_tokens += sum(isinstance(record, TokenEvent) for record in group)
        yield tuple(_told(request.id, record) for record in group)
    reused = model.prefixes.n_reused - n_reused
    return _done(job, begun, n_tokens, {"reused_tokens": reused} if reused else {})


def beam(request: protocol.Beam, job: Job, model: LoadedModel) -> Steps:
    """A step is one token of each hypothesis of each source that is going on."""
    n_sources = len(request.sources)
    if not 1 <= n_sources <= MAX_LANES // max(request.width, 1):
        raise ValueError(
            f"sources times width must lie in [1, {MAX_LANES}], not {n_sources} times {request.width}"
        )
    begun, n_tokens = time.perf_counter(), 0
    max_tokens = _within_context(model, request.max_tokens)
    check_room(model, n_sources * request.width, max_tokens)
    records = beam_search(
        model.checkpoint,
        request.sources,
        width=request.width,
        length_penalty=request.length_penalty,
        max_tokens=max_tokens,
        should_stop=job.cancelled,
    )
    for group in _by_step(records, n_sources):
        n_tokens += sum(isinstance(record, BeamProgress) for record in group)
        yield tuple(_found(request.id, record) for record in group)
    return _done(job, begun, n_tokens, {})


Record = TokenEvent | LaneFinished | BeamProgress | BeamFinished


def _by_step(records: Iterator[Record], n_lanes: int) -> Iterator[list[Record]]:
    """Group what a generation or a search yields: one record of each lane that is going on.

    The end of a lane follows its last record; that of the step's last lane is asked for together
    with the next step.
    """
    group: list[Record] = []
    n_seen, n_expected, n_going_on = 0, n_lanes, n_lanes
    for record in records:
        group.append(record)
        if isinstance(record, LaneFinished | BeamFinished):
            n_going_on -= 1
            if n_seen == 0:
                n_expected = n_going_on
        else:
            n_seen += 1
        if 0 < n_expected == n_seen:
            yield group
            group, n_seen, n_expected = [], 0, n_going_on
    if group:
        yield group


def _found(request_id: int, record: Record) -> Event:
    assert isinstance(record, BeamProgress | BeamFinished)
    if isinstance(record, BeamProgress):
        return protocol.BeamStep(
            id=request_id,
            lane=record.source,
            position=record.position,
            hypotheses=tuple(
                protocol.BeamHypothesis(text=one.text, score=one.score) for one in record.hypotheses
            ),
        )
    best = record.hypotheses[0] if record.hypotheses else None  # cancelled before the first step
    return protocol.LaneDone(
        id=request_id,
        lane=record.source,
        reason=record.reason,
        text=best.text if best else "",
        tokens=best.tokens if best else (),
        logprob=best.logprob if best else 0.0,
        score=best.score if best else None,
        n_prompt=record.n_prompt,
    )


def _told(request_id: int, record: Record) -> Event:
    assert isinstance(record, TokenEvent | LaneFinished)
    if isinstance(record, LaneFinished):
        return protocol.LaneDone(
            id=request_id,
            lane=record.lane,
            reason=record.reason,
            text=record.text,
            tokens=record.tokens,
            logprob=record.logprob,
            n_prompt=record.n_prompt,
            dropped_turns=record.dropped_turns,
        )
    return protocol.Token(
        id=request_id,
        lane=record.lane,
        position=record.position,
        token=record.token,
        piece=record.piece,
        logprob=record.logprob,
        entropy=record.entropy,
        probability=record.probability,
        top=record.top,
        trace=record.trace,
        settings_mark=record.settings_mark,
        settings=record.settings,
    )


def _done(job: Job, begun: float, n_tokens: int, detail: dict[str, Any]) -> Done:
    """The rate counts from the first step, not from the request, which may have waited for its model."""
    if job.cancelled():
        detail = {**detail, "cancelled": True}
    return Done(
        id=job.request.id,
        seconds=job.seconds(),
        n_tokens=n_tokens,
        tokens_per_second=n_tokens / max(time.perf_counter() - begun, 1e-9),
        detail=detail,
    )


def _within_context(model: LoadedModel, max_tokens: int) -> int:
    """No more than a lane can hold, so that no room is made for what never comes."""
    return min(max_tokens, model.checkpoint.config.max_positions + 1)


def score(request: protocol.Score, job: Job, model: LoadedModel) -> Steps:
    scored = introspect.score(model.checkpoint, request.text, request.source)
    yield (
        protocol.Scored(
            id=request.id, tokens=scored.tokens, logprob=scored.logprob, perplexity=scored.perplexity
        ),
    )
    return Done(id=request.id, seconds=job.seconds(), n_tokens=len(scored.tokens))


def tokenize(request: protocol.Tokenize, job: Job, model: LoadedModel) -> Steps:
    tokenizer = model.checkpoint.tokenizer
    size = model.checkpoint.config.vocab_size
    for token in request.ids:
        if not 0 <= token < size:
            raise ValueError(f"there is no token {token}: the ids of {model.info.name} are 0 to {size - 1}")

    def named(token: int) -> protocol.VocabularyToken:
        return protocol.VocabularyToken(
            token=token, piece=tokenizer.piece(token), special=tokenizer.is_special(token)
        )

    texts = tokenizer.encode_batch(request.texts)
    yield (
        protocol.Tokenized(
            id=request.id,
            texts=tuple(tuple(map(named, ids)) for ids in texts),
            ids=tuple(map(named, request.ids)),
        ),
    )
    return Done(id=request.id, seconds=job.seconds())


def attend(request: protocol.Attend, job: Job, model: LoadedModel) -> Steps:
    """One event for each stack of attentions, cross-attention first."""
    for maps in introspect.attention_maps(model.checkpoint, request.text, request.source):
        yield (
            protocol.Attended(
                id=request.id,
                source_pieces=maps.key_pieces,
                target_pieces=maps.query_pieces,
                kind="cross" if maps.part == "cross" else "self",
                part=maps.part,
                layers=tuple(_rounded(layer) for layer in maps.layers),
            ),
        )
    return Done(id=request.id, seconds=job.seconds())


def fill(request: protocol.Fill, job: Job, model: LoadedModel) -> Steps:
    pieces, masks = introspect.fill(
        model.checkpoint, request.text, request.n_top, request.settings, request.seed
    )
    yield (protocol.Filled(id=request.id, pieces=pieces, masks=masks),)
    return Done(id=request.id, seconds=job.seconds())


def _rounded(layer: torch.Tensor) -> tuple[tuple[tuple[float, ...], ...], ...]:
    """Weights to four decimals: what an eye can tell apart, at a third of the bytes."""
    rounded = torch.round(layer.double(), decimals=4).tolist()
    return tuple(tuple(tuple(row) for row in head) for head in rounded)


OPERATIONS: dict[type[protocol.Request], Callable[[Any, Job, LoadedModel], Steps]] = {
    protocol.ModelLoad: load,
    protocol.Generate: generate,
    protocol.Resample: resample,
    protocol.Beam: beam,
    protocol.Score: score,
    protocol.Tokenize: tokenize,
    protocol.Attend: attend,
    protocol.Fill: fill,
}
