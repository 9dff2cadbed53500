"""What a model is trained on: the loss of each batch, computed without storing the logits.

Letters: N target tokens, D d_model, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 1024  # rows of logits that exist at a time


@dataclass(frozen=True)
class Loss:
    """Sums over the target tokens of a batch; only ``total`` carries a gradient."""

    total: Tensor  # label-smoothed, nats
    nll: Tensor  # negative log-likelihood, nats
    correct: Tensor  # tokens predicted right
    n_tokens: int


class _LinearCrossEntropy(torch.autograd.Function):
    """Projection and label-smoothed cross-entropy in one, a chunk of rows at a time.

    With q = (1-e) onehot(y) + e/V, the loss of a row is logsumexp(z) - (1-e) z_y - e mean(z) and its
    gradient softmax(z) - q. Both need the logits once, so the gradient is made in the forward pass
    and the logits (N x V, the largest tensor of a step by far) are never stored.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        smoothing: float,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:
        n_vocab = weight_VD.shape[0]
        weight = weight_VD.to(dtype)
        needs_gradient = any(ctx.needs_input_grad[:3])
        grad_hidden = torch.empty_like(hidden_ND) if needs_gradient else None
        grad_weight = torch.zeros_like(weight_VD) if needs_gradient else None
        grad_bias = torch.zeros_like(bias_V) if needs_gradient and bias_V is not None else None
        total, nll, correct = (torch.zeros((), device=hidden_ND.device) for _ in range(3))
        for start in range(0, hidden_ND.shape[0], CHUNK):
            rows = slice(start, start + CHUNK)
            hidden, targets = hidden_ND[rows].to(dtype), targets_N[rows, None]
            logits = (hidden @ weight.T).float()
            if bias_V is not None:
                logits += bias_V
            target_logits, mean_logits = logits.gather(1, targets), logits.mean(1, keepdim=True)
            best, predicted = logits.max(1, keepdim=True)
            probabilities = torch.softmax(logits, dim=1)
            # The largest probability is at least 1/V, so its logarithm is safe.
            log_sum = best - probabilities.gather(1, predicted).log()
            nll += (log_sum - target_logits).sum()
            total += (log_sum - (1.0 - smoothing) * target_logits - smoothing * mean_logits).sum()
            correct += (predicted == targets).sum()
            if grad_hidden is not None and grad_weight is not None:
                gradient = probabilities.sub_(smoothing / n_vocab)
                gradient.scatter_add_(1, targets, torch.full_like(target_logits, smoothing - 1.0))
                if grad_bias is not None:
                    grad_bias += gradient.sum(0)
                gradient = gradient.to(dtype)
                grad_hidden[rows] = (gradient @ weight).to(grad_hidden.dtype)
                grad_weight += gradient.T @ hidden
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        ctx.mark_non_differentiable(nll, correct)
        return total, nll, correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        grads = (None if g is None else g * grad_total for g in ctx.saved_tensors)
        return *grads, None, None, None


def linear_cross_entropy(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    smoothing: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Loss:
    """``F.cross_entropy(hidden @ weight.T + bias, targets, label_smoothing=..., reduction="sum")``.

    ``dtype`` is that of the matrix products; sums and the softmax are float32.
    """
    total, nll, correct = _LinearCrossEntropy.apply(hidden_ND, weight_VD, bias_V, targets_N, smoothing, dtype)  # type: ignore[no-untyped-call]
    return Loss(total, nll, correct, targets_N.shape[0])
