"""The stages of the sampling chain: pure functions over logits.

Letters: B lanes, K candidates. ``z_BK`` are logits in float64, -inf where a token has been removed.
Columns stand in ascending token id. A parameter is a number or a column (B, 1), so lanes with different
settings share a call. Each function returns new logits and knows nothing of the other stages.

z = logits at this stage, p = softmax(z), H = entropy of p in nats. Everywhere:

- of equal tokens the one with the lower id goes first;
- a number within 1e-12 of a border counts as on it, so rounding decides nothing a person can see;
- a stage that would remove every token is stopped by :func:`keep_one`, which the chain applies.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Number = float | Tensor

_NONE = float("-inf")
_SLACK = 1e-12
_COLD = 1e-6  # temperatures below this are 0: z/T would leave the range of floats


# --------------------------------------------------------------------------- shared arithmetic
def entropy(z_BK: Tensor) -> Tensor:
    """Entropy of softmax(z) in nats: (B, 1)."""
    return nats(z_BK.log_softmax(-1))


def nats(logp_BK: Tensor) -> Tensor:
    """Entropy of the probabilities whose logarithms these are: (B, 1). Where p is 0 there is 0, and not the
    NaN of 0 times minus infinity. (``torch.special.entr`` would take every logarithm once more.)"""
    return -logp_BK.exp().mul_(logp_BK).nansum(-1, keepdim=True)


def count(mask_BK: Tensor) -> Tensor:
    """How many of each lane: (B, 1). In int32, which takes a fifth of the time of int64 on a CPU."""
    return mask_BK.sum(-1, keepdim=True, dtype=torch.int32).long()


def keep(z_BK: Tensor, kept_BK: Tensor) -> Tensor:
    return z_BK.masked_fill(~kept_BK, _NONE)


def keep_one(before_BK: Tensor, after_BK: Tensor) -> Tensor:
    """``after``, but a lane that lost its last token keeps the most probable one it had before."""
    empty_B1 = after_BK.amax(-1, keepdim=True) == _NONE
    if not bool(empty_B1.any()):
        return after_BK
    return torch.where(empty_B1, argmax_only(before_BK), after_BK)


def argmax_only(z_BK: Tensor) -> Tensor:
    best_B1 = z_BK.argmax(-1, keepdim=True)
    return torch.full_like(z_BK, _NONE).scatter_(-1, best_B1, z_BK.gather(-1, best_B1))


def largest(z_BK: Tensor, n_B1: Tensor) -> Tensor:
    """Mask of the n largest of each lane, exactly n (or all there are), without a full sort."""
    n_B1 = n_B1.clamp(1, z_BK.shape[-1])
    part_B1 = n_B1.masked_fill(n_B1 == z_BK.shape[-1], 1)  # who keeps all needs no border
    return _down_to(z_BK, n_B1, z_BK.topk(int(part_B1.max())).values)


def _down_to(z_BK: Tensor, n_B1: Tensor, sorted_BN: Tensor) -> Tensor:
    """The same where the largest are sorted already, as many as n of each lane that does not keep all."""
    all_B1 = n_B1 >= z_BK.shape[-1]
    border_B1 = sorted_BN.gather(-1, (n_B1 - 1).masked_fill(all_B1, 0)).masked_fill(all_B1, _NONE)
    above_BK, tied_BK = z_BK > border_B1, z_BK == border_B1
    room_B1 = n_B1 - count(above_BK)
    if bool((count(tied_BK) > room_B1).any()):
        tied_BK &= tied_BK.cumsum(-1) <= room_B1
    return above_BK | tied_BK


def _column(value: Number, z_BK: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    column = torch.as_tensor(value, dtype=dtype or z_BK.dtype, device=z_BK.device)
    return column.reshape(-1, 1).expand(z_BK.shape[0], 1)


# --------------------------------------------------------------------------- temperature
def temperature(z_BK: Tensor, t: Number) -> Tensor:
    """z / T; T = 0 keeps the most probable token alone."""
    t_B1 = _column(t, z_BK)
    cold_B1 = t_B1 < _COLD
    if bool(cold_B1.all()):
        return argmax_only(z_BK)
    warm_BK = z_BK / t_B1.masked_fill(cold_B1, 1.0)
    return torch.where(cold_B1, argmax_only(z_BK), warm_BK) if bool(cold_B1.any()) else warm_BK


def dynamic_temperature(z_BK: Tensor, t: Number, spread: Number, exponent: Number) -> Tensor:
    """T = lo + (hi - lo) (H / ln n)^e between lo = max(0, t - spread) and hi = t + spread.

    n counts the tokens that are left; with one left there is nothing to scale. Spread 0 is
    plain temperature.
    """
    t_B1, spread_B1 = _column(t, z_BK), _column(spread, z_BK)
    low_B1 = (t_B1 - spread_B1).clamp_min(0.0)
    n_B1 = count(z_BK > _NONE).to(z_BK.dtype)
    share_B1 = (entropy(z_BK) / n_B1.log().clamp_min(_SLACK)).clamp(0.0, 1.0)
    return temperature(z_BK, low_B1 + (t_B1 + spread_B1 - low_B1) * share_B1 ** _column(exponent, z_BK))


# --------------------------------------------------------------------------- truncation
def top_k(z_BK: Tensor, k: Number) -> Tensor:
    """Keep the k largest (Fan et al. 2018); 0 keeps all."""
    k_B1 = _column(k, z_BK, torch.int64)
    return keep(z_BK, largest(z_BK, k_B1.masked_fill(k_B1 == 0, z_BK.shape[-1])))


def top_p(z_BK: Tensor, p: Number) -> Tensor:
    """Keep the smallest sorted prefix whose probability is at least P (Holtzman et al. 2020)."""
    p_B1, width = _column(p, z_BK), z_BK.shape[-1]
    max_B1 = z_BK.amax(-1, keepdim=True)
    total_B1 = (z_BK - max_B1).exp_().sum(-1, keepdim=True)
    looked_at = min(64, width)
    while True:  # the prefix is short as a rule, so only as much is sorted as it needs
        sorted_BN = z_BK.topk(looked_at).values
        mass_BN = ((sorted_BN - max_B1).exp() / total_B1).cumsum(-1)
        n_B1 = 1 + count(mass_BN < p_B1 - _SLACK)
        n_B1 = n_B1.masked_fill(p_B1 >= 1.0, width)
        if looked_at == width or not bool(((n_B1 > looked_at) & (p_B1 < 1.0)).any()):
            return keep(z_BK, _down_to(z_BK, n_B1.clamp_max(width), sorted_BN))
        looked_at = min(8 * looked_at, width)


def min_p(z_BK: Tensor, share: Number) -> Tensor:
    """Keep p >= share * p_max (Nguyen et al. 2024)."""
    relative_BK = (z_BK - z_BK.amax(-1, keepdim=True)).exp_()
    return keep(z_BK, relative_BK >= _column(share, z_BK) * (1.0 - _SLACK))


def typical(z_BK: Tensor, mass: Number) -> Tensor:
    """Order by abs(-ln p - H) and keep the smallest prefix whose mass is reached (Meister et al. 2023)."""
    mass_B1 = _column(mass, z_BK)
    logp_BK = z_BK.log_softmax(-1)
    distance_BK = ((-logp_BK - entropy(z_BK)).abs() / _SLACK).round()  # in steps, so that ties are ties
    order_BK = distance_BK.argsort(dim=-1, stable=True)
    before_BK = logp_BK.exp().gather(-1, order_BK).cumsum(-1).roll(1, -1)  # mass in front of each
    kept_BK = (before_BK < mass_B1 - _SLACK) | (mass_B1 >= 1.0)
    kept_BK[:, 0] = True
    return keep(z_BK, torch.zeros_like(kept_BK).scatter(-1, order_BK, kept_BK))


def top_n_sigma(z_BK: Tensor, n: Number) -> Tensor:
    """Keep z >= z_max - n sigma, sigma over the tokens that are left (Tang et al. 2024); 0 keeps all."""
    n_B1 = _column(n, z_BK)
    left_BK = z_BK > _NONE
    count_B1 = count(left_BK)
    mean_B1 = z_BK.masked_fill(~left_BK, 0.0).sum(-1, keepdim=True) / count_B1
    square_BK = (z_BK - mean_B1).square().masked_fill(~left_BK, 0.0)
    sigma_B1 = (square_BK.sum(-1, keepdim=True) / count_B1).sqrt()
    border_B1 = z_BK.amax(-1, keepdim=True) - n_B1 * sigma_B1 - _SLACK
    return keep(z_BK, (z_BK >= border_B1) | (n_B1 == 0.0))


def xtc(z_BK: Tensor, coin: Number, chance: Number, threshold: Number) -> Tensor:
    """Exclude top choices: where two or more tokens have p >= t, drop all of those but the least likely.

    Happens where ``coin``, uniform in (0, 1), falls below the chance. By p-e-w, for
    text-generation-webui.
    """
    likely_BK = z_BK.softmax(-1) >= _column(threshold, z_BK) * (1.0 - _SLACK)
    likely_BK &= z_BK > _NONE
    acts_B1 = _column(coin, z_BK) < _column(chance, z_BK)
    least_B1 = z_BK.masked_fill(~likely_BK, float("inf")).amin(-1, keepdim=True)
    columns = torch.arange(z_BK.shape[-1], device=z_BK.device)
    spared_B1 = columns.where(likely_BK & (z_BK == least_B1), -1).amax(-1, keepdim=True)
    return keep(z_BK, ~(likely_BK & acts_B1) | (columns == spared_B1))


def epsilon(z_BK: Tensor, e: Number) -> Tensor:
    """Keep p >= e (Hewitt et al. 2022)."""
    return keep(z_BK, z_BK.softmax(-1) >= _column(e, z_BK) * (1.0 - _SLACK))


def eta(z_BK: Tensor, e: Number) -> Tensor:
    """Keep p >= min(e, sqrt(e) exp(-H)) (Hewitt et al. 2022)."""
    e_B1 = _column(e, z_BK)
    border_B1 = torch.minimum(e_B1, e_B1.sqrt() * (-entropy(z_BK)).exp())
    return keep(z_BK, z_BK.softmax(-1) >= border_B1 * (1.0 - _SLACK))


def mirostat(z_BK: Tensor, mu: Number) -> Tensor:
    """Drop the tokens whose surprise -log2 p exceeds mu bits (Basu et al. 2021, version 2)."""
    return keep(z_BK, surprise(z_BK) <= _column(mu, z_BK) + _SLACK)


def surprise(z_BK: Tensor) -> Tensor:
    """-log2 p, in bits."""
    return z_BK.log_softmax(-1) / -math.log(2.0)


# --------------------------------------------------------------------------- penalties and bans
def repetition(z_BK: Tensor, counts_BK: Tensor, r: Number) -> Tensor:
    """Of the tokens seen: z / r where z > 0, else z * r (Keskar et al. 2019)."""
    lanes, columns = (counts_BK > 0).nonzero(as_tuple=True)  # few
    z, r = z_BK[lanes, columns], _column(r, z_BK)[lanes, 0]
    return z_BK.index_put((lanes, columns), torch.where(z > 0, z / r, z * r))


def presence_frequency(z_BK: Tensor, counts_BK: Tensor, presence: Number, frequency: Number) -> Tensor:
    """z - a [count > 0] - f count."""
    lanes, columns = (counts_BK > 0).nonzero(as_tuple=True)
    a, f = _column(presence, z_BK)[lanes, 0], _column(frequency, z_BK)[lanes, 0]
    z = z_BK[lanes, columns] - a - f * counts_BK[lanes, columns]
    return z_BK.index_put((lanes, columns), z)


def shift(z_BK: Tensor, change_BK: Tensor) -> Tensor:
    """z + b: logit bias, bans (b = -inf) and what dry takes off."""
    return z_BK + change_BK
