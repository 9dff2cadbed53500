"""Positions against their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from tests.core.models import small_config
from tfm.core.config import RopeScaling
from tfm.core.positions import RotaryPositions, rotary_frequencies, rotate, sinusoidal_table


@pytest.mark.parametrize("position", [0, 1, 7, 99])
@pytest.mark.parametrize("pair", [0, 1, 7])
def test_sinusoids_follow_the_paper(position: int, pair: int) -> None:
    table = sinusoidal_table(100, 16)
    angle = position / 10_000 ** (2 * pair / 16)
    assert table[position, 2 * pair].item() == pytest.approx(math.sin(angle), abs=1e-6)
    assert table[position, 2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_layouts_hold_the_same_waves_in_another_order() -> None:
    interleaved, halves = sinusoidal_table(50, 16), sinusoidal_table(50, 16, "halves")
    assert torch.equal(interleaved[:, 0::2], halves[:, :8])
    assert torch.equal(interleaved[:, 1::2], halves[:, 8:])
    slowest = sinusoidal_table(50, 16, "halves-t2t")[:, 7]
    torch.testing.assert_close(slowest, torch.sin(torch.arange(50) / 10_000.0))


def test_rotary_products_depend_on_distance_only() -> None:
    rotary = RotaryPositions(small_config(positions="rotary"))
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def product(query_at: int, key_at: int) -> float:
        turned = rotate(q, rotary(torch.tensor([[query_at]]))), rotate(k, rotary(torch.tensor([[key_at]])))
        return float((turned[0] * turned[1]).sum())

    assert product(5, 2) == pytest.approx(product(43, 40), abs=1e-4)
    assert product(5, 2) != pytest.approx(product(5, 3), abs=1e-4)
    assert float(rotate(q, rotary(torch.tensor([[9]]))).norm()) == pytest.approx(float(q.norm()), abs=1e-5)


def test_rope_scaling() -> None:
    plain = rotary_frequencies(64, 10_000.0)
    linear = rotary_frequencies(64, 10_000.0, RopeScaling(kind="linear", factor=4.0))
    torch.testing.assert_close(linear, plain / 4)
    scaling = RopeScaling(kind="llama3", factor=8.0, original_max_positions=8192)
    llama3 = rotary_frequencies(64, 500_000.0, scaling)
    base = rotary_frequencies(64, 500_000.0)
    wavelengths = 2 * math.pi / base
    torch.testing.assert_close(llama3[wavelengths < 8192 / 4], base[wavelengths < 8192 / 4])
    torch.testing.assert_close(llama3[wavelengths > 8192], base[wavelengths > 8192] / 8)
    assert torch.all(llama3 <= base) and torch.all(llama3 >= base / 8)
