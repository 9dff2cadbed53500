"""What the engine does with a model: each request as a generator, one step a turn.

A generator yields the events of one step and returns the ``Done`` that closes its request. Between
two steps it looks whether it was cancelled or tuned.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator

import torch

from tfm.core import introspect
from tfm.core.engine import protocol
from tfm.core.engine.jobs import Job
from tfm.core.engine.protocol import Done, Event
from tfm.core.engine.sessions import LoadedModel

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


def score(request: protocol.Score, job: Job, model: LoadedModel) -> Steps:
    scored = introspect.score(model.checkpoint, request.text, request.source)
    yield (
        protocol.Scored(
            id=request.id, tokens=scored.tokens, logprob=scored.logprob, perplexity=scored.perplexity
        ),
    )
    return Done(id=request.id, seconds=job.seconds(), n_tokens=len(scored.tokens))


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
    pieces, masks = introspect.fill(model.checkpoint, request.text, request.n_top)
    yield (protocol.Filled(id=request.id, pieces=pieces, masks=masks),)
    return Done(id=request.id, seconds=job.seconds())


def _rounded(layer: torch.Tensor) -> tuple[tuple[tuple[float, ...], ...], ...]:
    """Weights to four decimals: what an eye can tell apart, at a third of the bytes."""
    rounded = torch.round(layer.double(), decimals=4).tolist()
    return tuple(tuple(tuple(row) for row in head) for head in rounded)


OPERATIONS = {
    protocol.ModelLoad: load,
    protocol.Score: score,
    protocol.Attend: attend,
    protocol.Fill: fill,
}
