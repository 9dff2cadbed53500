"""The learning rate as a function of the step (steps count from 1)."""

from __future__ import annotations

import math

from tfm.train.config import OptimConfig


def learning_rate(config: OptimConfig, step: int, total_steps: int) -> float:
    """The rate of one step.

    All schedules rise linearly over ``warmup_steps`` to the peak. Then:

    - ``inverse-sqrt``: peak * sqrt(warmup / step). With peak = (d_model * warmup)^-0.5 this is the
      schedule of Vaswani et al. 2017, section 5.3 ("Noam").
    - ``cosine``: half a cosine down to ``final_lr_fraction`` of the peak (Loshchilov and Hutter 2017).
    - ``wsd``: constant, then linear down over the last ``decay_fraction`` of the steps (Hu et al. 2024).
    - ``constant``
    """
    peak, warmup = config.learning_rate, config.warmup_steps
    if step < warmup:
        return peak * step / warmup
    if config.schedule == "inverse-sqrt":
        return float(peak * (max(warmup, 1) / step) ** 0.5)
    if config.schedule == "constant":
        return peak
    floor = config.final_lr_fraction
    if config.schedule == "cosine":
        progress = _fraction(step, warmup, total_steps)
        return peak * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress)))
    decay_start = total_steps - int(config.decay_fraction * total_steps)
    return peak * (1.0 - (1.0 - floor) * _fraction(step, max(decay_start, warmup), total_steps))


def _fraction(step: int, start: int, end: int) -> float:
    return min(max((step - start) / max(end - start, 1), 0.0), 1.0)
