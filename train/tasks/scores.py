"""What every task computes alike: the loss of hidden states, and sums over a validation set."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tfm.core.model import Model
from tfm.train.events import Evaluated
from tfm.train.objectives import Loss, linear_cross_entropy, two_readings_cross_entropy


def head_loss(
    model: Model, hidden_ND: Tensor, labels_N: Tensor, smoothing: float, dtype: torch.dtype
) -> Loss:
    """Loss of hidden states (N, D) under the model's own output projection."""
    head = model.head
    features = head.features(hidden_ND).float()
    return linear_cross_entropy(features, head.projection.weight, head.bias, labels_N, smoothing, dtype)


def training_loss(
    model: Model,
    read: Callable[[], Tensor],
    labels_N: Tensor,
    smoothing: float,
    r_drop: float,
    dtype: torch.dtype,
) -> Loss:
    """Loss of what ``read`` makes of a batch, hidden states (N, D); with ``r_drop``, of two readings."""
    if not r_drop:
        return head_loss(model, read(), labels_N, smoothing, dtype)
    head = model.head
    features_2ND = head.features(torch.stack([read(), read()])).float()
    return two_readings_cross_entropy(
        features_2ND, head.projection.weight, head.bias, labels_N, smoothing, r_drop, dtype
    )


@dataclass
class Sums:
    """Losses added up over batches."""

    total: float = 0.0
    nll: float = 0.0
    correct: float = 0.0
    n_tokens: int = 0

    def add(self, loss: Loss) -> None:
        self.total += float(loss.total)
        self.nll += float(loss.nll)
        self.correct += float(loss.correct)
        self.n_tokens += loss.n_tokens

    def evaluated(self, step: int) -> Evaluated:
        """Means over the predicted tokens."""
        n = max(self.n_tokens, 1)
        return Evaluated(
            step=step,
            loss=self.total / n,
            perplexity=math.exp(min(self.nll / n, 50.0)),
            accuracy=self.correct / n,
        )


def quality(scores: Evaluated, by: Literal["loss", "bleu", "chrf", "accuracy"]) -> float:
    """What evaluations are compared by: larger is better. Without the metric asked for, it is the loss."""
    value = -scores.loss if by == "loss" else getattr(scores, by)
    return -scores.loss if value is None else float(value)
