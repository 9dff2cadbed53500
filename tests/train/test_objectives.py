"""The fused loss is PyTorch's cross-entropy, without the logits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from tfm.train.objectives import CHUNK, linear_cross_entropy, two_readings_cross_entropy


@given(
    n=st.integers(1, 40),
    smoothing=st.sampled_from([0.0, 0.1, 0.3]),
    with_bias=st.booleans(),
    seed=st.integers(0, 999),
)
@settings(deadline=None, max_examples=40)
def test_equals_cross_entropy(n: int, smoothing: float, with_bias: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, 8, generator=generator, requires_grad=True)
    weight = torch.randn(23, 8, generator=generator, requires_grad=True)
    bias = torch.randn(23, generator=generator, requires_grad=True) if with_bias else None
    labels = torch.randint(0, 23, (n,), generator=generator)
    leaves = [hidden, weight] + ([bias] if bias is not None else [])

    logits = F.linear(hidden, weight, bias)
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")
    expected_grads = torch.autograd.grad(expected * 0.5, leaves)
    loss = linear_cross_entropy(hidden, weight, bias, labels, smoothing)
    grads = torch.autograd.grad(loss.total * 0.5, leaves)

    torch.testing.assert_close(loss.total, expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(
        loss.nll, F.cross_entropy(logits, labels, reduction="sum"), rtol=1e-5, atol=1e-4
    )
    assert int(loss.correct) == int((logits.argmax(1) == labels).sum())
    assert loss.n_tokens == n
    assert loss.total.requires_grad
    assert not any(each.requires_grad for each in (loss.penalty, loss.nll, loss.correct))
    for ours, theirs in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_many_chunks_and_extreme_logits() -> None:
    torch.manual_seed(0)
    n = 2 * CHUNK + 17
    hidden, weight, labels = torch.randn(n, 4) * 60, torch.randn(11, 4), torch.randint(0, 11, (n,))
    loss = linear_cross_entropy(hidden, weight, None, labels, 0.1)
    expected = F.cross_entropy(hidden @ weight.T, labels, label_smoothing=0.1, reduction="sum")
    torch.testing.assert_close(loss.total, expected, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_bf16_products_stay_close(smoothing: float) -> None:
    torch.manual_seed(1)
    hidden, weight = torch.randn(300, 64), torch.randn(500, 64) * 0.1
    labels = torch.randint(0, 500, (300,))
    exact = linear_cross_entropy(hidden, weight, None, labels, smoothing)
    rounded = linear_cross_entropy(hidden, weight, None, labels, smoothing, torch.bfloat16)
    assert float(rounded.total) == pytest.approx(float(exact.total), rel=5e-3)


@given(
    n=st.integers(1, CHUNK),
    alpha=st.sampled_from([0.5, 5.0]),
    with_bias=st.booleans(),
    seed=st.integers(0, 999),
)
@settings(deadline=None, max_examples=30)
def test_two_readings_are_half_of_r_drops_loss(n: int, alpha: float, with_bias: bool, seed: int) -> None:
    """Against the paper's formula, written out with PyTorch's own functions."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(2, n, 8, generator=generator, requires_grad=True)
    weight = torch.randn(23, 8, generator=generator, requires_grad=True)
    bias = torch.randn(23, generator=generator, requires_grad=True) if with_bias else None
    labels = torch.randint(0, 23, (n,), generator=generator)
    leaves = [hidden, weight] + ([bias] if bias is not None else [])

    logits = F.linear(hidden, weight, bias)
    first, second = logits.log_softmax(-1)
    cross = [F.cross_entropy(z, labels, label_smoothing=0.1, reduction="sum") for z in logits]
    apart = F.kl_div(first, second, reduction="sum", log_target=True)
    apart = apart + F.kl_div(second, first, reduction="sum", log_target=True)
    expected = (cross[0] + cross[1] + alpha * apart / 2) / 2
    expected_grads = torch.autograd.grad(expected, leaves)
    loss = two_readings_cross_entropy(hidden, weight, bias, labels, 0.1, alpha)
    grads = torch.autograd.grad(loss.total, leaves)

    torch.testing.assert_close(loss.total, expected, rtol=1e-5, atol=1e-3)
    assert loss.n_tokens == n
    assert float(loss.correct.detach()) == float((logits.argmax(-1) == labels).sum()) / 2
    for ours, theirs in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_two_equal_readings_are_one() -> None:
    torch.manual_seed(2)
    hidden, weight, labels = torch.randn(40, 8), torch.randn(23, 8), torch.randint(0, 23, (40,))
    one = linear_cross_entropy(hidden, weight, None, labels, 0.1)
    two = two_readings_cross_entropy(torch.stack([hidden, hidden]), weight, None, labels, 0.1, 5.0)
    torch.testing.assert_close(two.total, one.total, rtol=1e-6, atol=1e-4)
