from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tfm.core.sampling.noise import CHANCE, gumbel, uniform

IDS = torch.arange(50_000)


def splitmix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % 2**64
    return x ^ (x >> 31)


def reference(seed: int, position: int, token: int) -> float:
    """The same number from Python's unbounded integers."""
    golden = 0x9E3779B97F4A7C15
    key = splitmix((splitmix((seed + golden) % 2**64) + position * golden) % 2**64)
    return ((splitmix((key + token * golden) % 2**64) >> 12) + 0.5) / 2**52


@given(st.integers(-(2**70), 2**70), st.integers(0, 2**40), st.lists(st.integers(-1, 2**40), min_size=1))
def test_the_hash_in_torch_is_the_hash_in_python(seed: int, position: int, ids: list[int]) -> None:
    found = uniform([seed], [position], torch.tensor(ids))
    assert found.tolist() == [[reference(seed, position, token) for token in ids]]


def test_the_hash_is_splitmix64() -> None:
    assert splitmix(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF  # its first output from seed 0


def test_values_are_pinned() -> None:
    """A recipe written down today must replay tomorrow: these numbers never change."""
    found = uniform([0, 42, -1], [0, 7, 1000], torch.tensor([0, 1, 50_256, CHANCE]))
    expected = [
        [0.20310281705476096, 0.33805245419550556, 0.09946865511325054, 0.9981113547021904],
        [0.4624604134319753, 0.44255783193913845, 0.4509837641786857, 0.5735337956769241],
        [0.7486231004153031, 0.17907722591545439, 0.8318226166641313, 0.18827173601144132],
    ]
    assert found.tolist() == expected


def test_the_noise_of_a_token_depends_on_nothing_else() -> None:
    full = gumbel([3, 4], [10, 10], IDS)
    chosen = torch.tensor([49_999, 5, 5, 17, 0])
    assert torch.equal(gumbel([3], [10], chosen)[0], full[0, chosen])  # no vocabulary, no order
    assert torch.equal(gumbel([4], [10], IDS[:7])[0], full[1, :7])  # no batch
    table = torch.stack([IDS[:100], IDS[100:200]])
    assert torch.equal(gumbel([3, 4], [10, 10], table)[1], full[1, 100:200])  # ids of each row its own


def test_every_number_lies_strictly_inside_zero_and_one() -> None:
    assert (2**52 - 1 + 0.5) * 2.0**-52 < 1.0 and 0.5 * 2.0**-52 > 0.0
    found = uniform(list(range(40)), [0] * 40, IDS)
    assert found.min() > 0.0 and found.max() < 1.0
    assert gumbel(list(range(40)), [0] * 40, IDS).isfinite().all()


def kolmogorov_smirnov(sample: Tensor) -> float:
    """sqrt(n) times the largest distance from the uniform distribution; above 1.95 in 1 of 1,000."""
    x = sample.flatten().sort().values
    n = len(x)
    ranks = torch.arange(1, n + 1, dtype=torch.float64) / n
    return math.sqrt(n) * float(torch.maximum((ranks - x).abs(), (x - ranks + 1 / n).abs()).max())


def chi_square(counts: Tensor, expected: Tensor) -> float:
    """As a standard normal deviate (Wilson and Hilferty 1931)."""
    statistic = float(((counts - expected) ** 2 / expected).sum())
    degrees = counts.numel() - 1
    spread = 2 / (9 * degrees)
    return float(((statistic / degrees) ** (1 / 3) - (1 - spread)) / math.sqrt(spread))


ALONG = {
    "token ids": lambda n: uniform([7], [3], torch.arange(n))[0],
    "positions": lambda n: uniform([7] * n, list(range(n)), torch.tensor([3]))[:, 0],
    "seeds": lambda n: uniform(list(range(n)), [7] * n, torch.tensor([3]))[:, 0],
    "coins": lambda n: uniform([7] * n, list(range(n)), torch.tensor([CHANCE]))[:, 0],
    "seeds with far bits": lambda n: uniform([i << 40 for i in range(n)], [0] * n, torch.tensor([0]))[:, 0],
}


@pytest.mark.parametrize("axis", ALONG)
def test_uniform_and_independent_along(axis: str) -> None:
    x = ALONG[axis](20_000)
    assert kolmogorov_smirnov(x) < 1.95
    for lag in (1, 2, 64):
        cells = (x[:-lag] * 16).long() * 16 + (x[lag:] * 16).long()
        counts = torch.bincount(cells, minlength=256).double()
        assert abs(chi_square(counts, torch.full_like(counts, len(cells) / 256))) < 3.5


def test_low_bits_are_as_good_as_high_ones() -> None:
    x = uniform([1], [1], torch.arange(20_000))[0]
    assert kolmogorov_smirnov((x * 2**20) % 1.0) < 1.95


def test_gumbel_noise_has_the_moments_of_its_distribution() -> None:
    x = gumbel([11], [0], torch.arange(200_000))
    assert float(x.mean()) == pytest.approx(0.5772, abs=0.01)
    assert float(x.var()) == pytest.approx(math.pi**2 / 6, abs=0.03)


def test_argmax_draws_from_the_softmax() -> None:
    z = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -2.0], dtype=torch.float64)
    n = 40_000
    drawn = (z + gumbel([5] * n, list(range(n)), torch.arange(6))).argmax(-1)
    counts = torch.bincount(drawn, minlength=6).double()
    assert abs(chi_square(counts, z.softmax(-1) * n)) < 3.5
