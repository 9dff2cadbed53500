"""When training goes wrong: which losses are refused, and what is changed before it is tried again.

A step is refused, before its update is applied, if its loss or gradient is not finite, or if its loss
is a spike: above mean + k * deviation of the last losses, where the deviation counts as at least
``LEAST_DEVIATION`` (a run that has nearly memorised its data has losses that hardly deviate).

Going back alone would change nothing: the same batches in the same order with the same random numbers
lead to the same step. So the batches of that step are left out and the learning rate is lowered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from tfm.train.batching import Place
from tfm.train.config import GuardConfig

LEAST_DEVIATION = 0.05  # nats a token


class GuardState(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What the guard remembers; a part of a run's progress, so that a resumed run decides the same."""

    losses: list[float] = []  # of the last steps that were applied, oldest first
    in_a_row: int = 0  # times that the run went back without getting past the trouble
    trouble_step: int = 0  # the step that was refused last
    left_out: list[Place] = []
    rate_factor: float = 1.0  # on the learning rate ...
    lowered_until: int = 0  # ... up to this step


def refusal(config: GuardConfig, state: GuardState, loss: float, grad_norm: float) -> str:
    """Why a step must not be applied, for a person; empty where it may be.

    Args:
        loss: of this step, nats a token.
    """
    if not math.isfinite(loss):
        return "the loss is not finite"
    if not math.isfinite(grad_norm):
        return "the gradient is not finite"
    if not config.spike_deviations or len(state.losses) < config.window // 2:
        return ""
    mean, deviation = float(np.mean(state.losses)), float(np.std(state.losses))
    if loss <= mean + config.spike_deviations * max(deviation, LEAST_DEVIATION):
        return ""
    return (
        f"the loss is a spike: {loss:.2f} after {mean:.2f} ± {deviation:.2f} over {len(state.losses)} steps"
    )


def applied(config: GuardConfig, state: GuardState, loss: float, step: int) -> None:
    """Note that a step was applied; a window beyond the trouble, the run is past it."""
    state.losses.append(loss)
    del state.losses[: -config.window]
    if state.in_a_row and step >= state.trouble_step + config.window:
        state.in_a_row = 0


def refused(state: GuardState, step: int) -> None:
    """Note that a step was refused."""
    state.in_a_row += 1
    state.trouble_step = max(step, state.trouble_step)


def retry(
    config: GuardConfig, state: GuardState, then: GuardState, step: int, offending: Sequence[Place]
) -> GuardState:
    """The state after going back from where it is ``state`` to ``step``, where it was ``then``."""
    factor, until = state.rate_factor, state.lowered_until
    if config.lower_by < 1.0:
        still_lowered = state.trouble_step <= until
        factor = config.lower_by * (factor if still_lowered else 1.0)
        until = step + config.lower_steps if config.lower_steps else 2**53
    return GuardState(
        losses=then.losses,
        in_a_row=state.in_a_row,
        trouble_step=state.trouble_step,
        left_out=[*state.left_out, *offending] if config.skip else state.left_out,
        rate_factor=factor,
        lowered_until=until,
    )


def what_is_changed(config: GuardConfig, state: GuardState, step: int, n_batches: int) -> str:
    """What :func:`retry` has changed, for a person."""
    batches = "1 batch is" if n_batches == 1 else f"{n_batches} batches are"
    changes = [f"{batches} left out"] if config.skip else []
    if state.rate_factor < 1.0:
        until = f" up to step {state.lowered_until:,}" if config.lower_steps else ""
        changes.append(f"the learning rate is multiplied by {state.rate_factor:g}{until}")
    changed = " and ".join(changes) or "nothing is changed, as the config asks"
    return f"back at step {step:,}, attempt {state.in_a_row} of {config.attempts}: {changed}"
