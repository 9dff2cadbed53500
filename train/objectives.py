"""What a model is trained on: the loss of each batch, computed without storing the logits.

Letters: N target tokens, D d_model, V vocabulary, C rows of a chunk, R readings of the same tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = (
    512  # rows of logits that exist at a time; of 10,000 tokens in bf16 they are 10 MB, which a cache holds
)


@dataclass(frozen=True)
class Loss:
    """Sums over the target tokens of a batch; only ``total`` carries a gradient."""

    total: Tensor  # label-smoothed, nats; of two readings, plus the penalty
    penalty: Tensor  # for how far two readings are apart
    nll: Tensor  # negative log-likelihood, nats
    correct: Tensor  # tokens predicted right; a half for each of two readings
    n_tokens: int


class _LinearCrossEntropy(torch.autograd.Function):
    """Projection and loss in one, a chunk of rows at a time.

    With q = (1-e) onehot(y) + e/V, the loss of a row is logsumexp(z) - (1-e) z_y - e mean(z) and its
    gradient softmax(z) - q. Both need the logits once, so the gradient is made in the forward pass
    and the logits (N x V, the largest tensor of a step by far) are never stored. What is the same for
    all of V, the e/V of the gradient and the mean of the logits, is taken out of the chunks: a mean
    of logits is the logit of the mean weight.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_RND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        smoothing: float,
        consistency: float,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        (n_readings, n_tokens, _), n_vocab = hidden_RND.shape, weight_VD.shape[0]
        needs_gradient = any(ctx.needs_input_grad[:3])
        weight, rounded_RND = weight_VD.to(dtype), hidden_RND.to(dtype)
        # Both laid out as a chunk's product wants them: a transposed view would be copied for every chunk.
        weight_DV, grad_weight_DV = weight.T.contiguous(), torch.zeros_like(weight_VD.T.contiguous())
        mean_logits_RN = rounded_RND.float() @ weight.float().mean(0)
        if bias_V is not None:
            mean_logits_RN += bias_V.mean()
        grad_hidden = torch.empty_like(hidden_RND)
        grad_bias = None if bias_V is None else torch.zeros_like(bias_V)
        total, penalty, nll, correct = (torch.zeros((), device=hidden_RND.device) for _ in range(4))
        size = CHUNK // n_readings
        for start in range(0, n_tokens, size):
            rows = slice(start, start + size)
            targets = targets_N[rows, None]
            logits = [reading[rows] @ weight_DV for reading in rounded_RND]
            if bias_V is not None:
                logits = [z + bias_V for z in logits]
            probabilities = []
            for z, mean in zip(logits, mean_logits_RN[:, rows, None], strict=True):
                p, log_sum, hits = _softmax(z, targets)
                target_logits = z.gather(1, targets).float()
                nll += (log_sum - target_logits).sum()
                total += (log_sum - (1.0 - smoothing) * target_logits - smoothing * mean).sum()
                correct += hits
                probabilities.append(p)
            gradients = probabilities
            if n_readings == 2:
                apart, gradients = _pull_together(logits, probabilities, consistency / 2)
                penalty += consistency * apart  # halved below
            if needs_gradient:
                for reading, gradient in enumerate(gradients):
                    gradient.scatter_add_(
                        1, targets, torch.full_like(targets, smoothing - 1.0, dtype=gradient.dtype)
                    )
                    if grad_bias is not None:
                        grad_bias += gradient.sum(0, dtype=grad_bias.dtype)
                    gradient = gradient.to(dtype)
                    grad_hidden[reading, rows] = (gradient @ weight).to(grad_hidden.dtype)
                    grad_weight_DV += rounded_RND[reading, rows].T @ gradient
        if needs_gradient:
            share = smoothing / n_vocab
            grad_hidden -= share * weight_VD.sum(0)
            grad_weight_VD = grad_weight_DV.T - share * hidden_RND.sum((0, 1))
            if grad_bias is not None:
                grad_bias -= share * n_readings * n_tokens
            ctx.save_for_backward(grad_hidden, grad_weight_VD, grad_bias)
        ctx.n_readings = n_readings
        total, penalty, nll, correct = (
            each / n_readings for each in (total + penalty, penalty, nll, correct)
        )
        ctx.mark_non_differentiable(penalty, nll, correct)
        return total, penalty, nll, correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad_total / ctx.n_readings
        grads = (None if g is None else g * scale for g in ctx.saved_tensors)
        return *grads, None, None, None, None


def _softmax(logits_CV: Tensor, targets_C1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities (C, V), logsumexp (C, 1) and the number of rows whose target is the likeliest."""
    best, predicted = logits_CV.max(1, keepdim=True)
    probabilities = torch.softmax(logits_CV, dim=1)
    # The largest probability is at least 1/V, so its logarithm is safe.
    log_sum = best.float() - probabilities.gather(1, predicted).float().log()
    return probabilities, log_sum, (predicted == targets_C1).sum()


def _pull_together(
    logits: list[Tensor], probabilities: list[Tensor], weight: float
) -> tuple[Tensor, list[Tensor]]:
    """How far apart two readings of a chunk are, and p + weight times the gradient of twice that, for each.

    The measure is the mean of KL(p||q) and KL(q||p). With d = z_p - z_q the normalisers cancel, and it is
    sum((p - q) d) / 2; its gradient by z_p is (p (d - sum(p d)) + p - q) / 2.
    """
    p, q = probabilities
    apart = logits[0] - logits[1]
    p_mean, q_mean = (p * apart).sum(1, keepdim=True), (q * apart).sum(1, keepdim=True)
    to_p = (apart - p_mean).mul_(weight).add_(1.0 + weight).mul_(p).sub_(q, alpha=weight)
    to_q = (q_mean - apart).mul_(weight).add_(1.0 + weight).mul_(q).sub_(p, alpha=weight)
    return 0.5 * (p_mean - q_mean).float().sum(), [to_p, to_q]


def linear_cross_entropy(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    smoothing: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Loss:
    """``F.cross_entropy(hidden @ weight.T + bias, targets, label_smoothing=..., reduction="sum")``.

    ``dtype`` is that of the logits and of the matrix products; sums are float32.
    """
    return _loss(hidden_ND[None], weight_VD, bias_V, targets_N, smoothing, 0.0, dtype)


def two_readings_cross_entropy(
    hidden_2ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    smoothing: float,
    consistency: float,
    dtype: torch.dtype = torch.float32,
) -> Loss:
    """R-Drop (Liang et al. 2021): the same tokens read twice, under two draws of dropout.

    The mean of both cross-entropies, plus ``consistency / 2`` times the mean of KL(p||q) and KL(q||p):
    half of the paper's loss, whose alpha ``consistency`` is, so that it compares with that of one reading.
    """
    return _loss(hidden_2ND, weight_VD, bias_V, targets_N, smoothing, consistency, dtype)


def _loss(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, *options: Any) -> Loss:
    total, penalty, nll, correct = _LinearCrossEntropy.apply(hidden, weight, bias, targets, *options)  # type: ignore[no-untyped-call]
    return Loss(total, penalty, nll, correct, targets.shape[0])
