"""Learning rates against their formulas."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfm.train.config import OptimConfig
from tfm.train.schedules import learning_rate


@given(step=st.integers(1, 100_000), d_model=st.sampled_from([128, 256, 512]), warmup=st.integers(1, 8000))
def test_inverse_sqrt_is_noams(step: int, d_model: int, warmup: int) -> None:
    peak = min((d_model * warmup) ** -0.5, 1.0)
    config = OptimConfig(learning_rate=peak, warmup_steps=warmup, schedule="inverse-sqrt")
    noam = d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)  # Vaswani et al. 2017, equation 3
    assert learning_rate(config, step, 100_000) == pytest.approx(noam, rel=1e-9)


@pytest.mark.parametrize("schedule", ["inverse-sqrt", "cosine", "wsd", "constant"])
def test_warm_up_is_linear_to_the_peak(schedule: str) -> None:
    config = OptimConfig(learning_rate=0.01, warmup_steps=100, schedule=schedule)  # type: ignore[arg-type]
    for step in (1, 50, 100):
        assert learning_rate(config, step, 1000) == pytest.approx(0.01 * step / 100)


def test_cosine() -> None:
    config = OptimConfig(learning_rate=1e-2, warmup_steps=100, schedule="cosine", final_lr_fraction=0.1)
    middle = 1e-2 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert learning_rate(config, 550, 1000) == pytest.approx(middle)
    assert learning_rate(config, 1000, 1000) == pytest.approx(1e-3)
    assert learning_rate(config, 5000, 1000) == pytest.approx(1e-3)


def test_wsd_is_flat_then_falls() -> None:
    config = OptimConfig(
        learning_rate=1e-2, warmup_steps=10, schedule="wsd", decay_fraction=0.2, final_lr_fraction=0.0
    )
    assert learning_rate(config, 799, 1000) == pytest.approx(1e-2)
    assert learning_rate(config, 900, 1000) == pytest.approx(5e-3)
    assert learning_rate(config, 1000, 1000) == 0.0


@given(step=st.integers(1, 2000))
def test_no_schedule_leaves_zero_to_peak(step: int) -> None:
    for schedule in ("inverse-sqrt", "cosine", "wsd", "constant"):
        config = OptimConfig(learning_rate=0.01, warmup_steps=0, schedule=schedule)
        assert 0.0 <= learning_rate(config, step, 1000) <= 0.01 + 1e-12
