"""Slow twins of the sampling chain: one lane, plain Python numbers, every rule spelled out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tfm.core.sampling.settings import SamplingSettings

NONE = -math.inf
SLACK = 1e-12
Logits = list[float]


def softmax(z: Logits) -> list[float]:
    top = max(z)
    weights = [math.exp(x - top) for x in z]
    total = math.fsum(weights)
    return [w / total for w in weights]


def entropy(z: Logits) -> float:
    return -math.fsum(p * math.log(p) for p in softmax(z) if p > 0)


def keep(z: Logits, kept: Sequence[bool]) -> Logits:
    out = [x if k else NONE for x, k in zip(z, kept, strict=True)]
    if max(out) == NONE:
        best = z.index(max(z))
        out[best] = z[best]
    return out


def descending(z: Logits) -> list[int]:
    return sorted(range(len(z)), key=lambda i: (-z[i], i))


def prefix(z: Logits, order: list[int], mass: float) -> Logits:
    """Keep the smallest beginning of the order whose probability is at least the mass."""
    p, total, kept = softmax(z), 0.0, [False] * len(z)
    for i in order:
        kept[i] = True
        total += p[i]
        if total >= mass - SLACK:
            break
    return keep(z, kept)


def temperature(z: Logits, t: float) -> Logits:
    return keep(z, [False] * len(z)) if t < 1e-6 else [x / t for x in z]


def dynamic_temperature(z: Logits, t: float, spread: float, exponent: float) -> Logits:
    n = sum(x > NONE for x in z)
    low, high = max(0.0, t - spread), t + spread
    share = min(1.0, entropy(z) / math.log(n)) if n > 1 else 0.0
    return temperature(z, low + (high - low) * share**exponent)


def top_k(z: Logits, k: int) -> Logits:
    best = set(descending(z)[:k]) if k else set(range(len(z)))
    return keep(z, [i in best for i in range(len(z))])


def top_p(z: Logits, p: float) -> Logits:
    return z if p >= 1 else prefix(z, descending(z), p)


def min_p(z: Logits, share: float) -> Logits:
    p = softmax(z)
    return keep(z, [x >= share * max(p) * (1 - SLACK) for x in p])


def typical(z: Logits, mass: float) -> Logits:
    if mass >= 1:
        return z
    h = entropy(z)
    distance = [abs(-math.log(p) - h) if p > 0 else math.inf for p in softmax(z)]
    return prefix(z, sorted(range(len(z)), key=lambda i: (round(distance[i], 12), i)), mass)


def top_n_sigma(z: Logits, n: float) -> Logits:
    left = [x for x in z if x > NONE]
    mean = math.fsum(left) / len(left)
    sigma = math.sqrt(math.fsum((x - mean) ** 2 for x in left) / len(left))
    return z if n == 0 else keep(z, [x >= max(z) - n * sigma - SLACK for x in z])


def xtc(z: Logits, coin: float, chance: float, threshold: float) -> Logits:
    p = softmax(z)
    likely = [i for i in descending(z) if z[i] > NONE and p[i] >= threshold * (1 - SLACK)]
    dropped = set(likely[:-1]) if coin < chance else set()
    return keep(z, [i not in dropped for i in range(len(z))])


def epsilon(z: Logits, e: float) -> Logits:
    return keep(z, [p >= e * (1 - SLACK) for p in softmax(z)])


def eta(z: Logits, e: float) -> Logits:
    return epsilon(z, min(e, math.sqrt(e) * math.exp(-entropy(z))))


def mirostat(z: Logits, mu: float) -> Logits:
    return keep(z, [p > 0 and -math.log2(p) <= mu + SLACK for p in softmax(z)])


def repetition(z: Logits, seen: Sequence[int], r: float) -> Logits:
    return [(x / r if x > 0 else x * r) if i in seen else x for i, x in enumerate(z)]


def presence_frequency(z: Logits, seen: Sequence[int], a: float, f: float) -> Logits:
    return [x - a * (i in seen) - f * list(seen).count(i) for i, x in enumerate(z)]


def no_repeat_ngram(z: Logits, history: Sequence[int], n: int) -> Logits:
    seen = {tuple(history[i : i + n]) for i in range(len(history) - n + 1)}
    opening = tuple(history[len(history) - (n - 1) :]) if len(history) >= n - 1 else None
    return keep(z, [opening is None or (*opening, token) not in seen for token in range(len(z))])


def dry_penalty(
    history: Sequence[int], token: int, multiplier: float, base: float, allowed: int, breakers: set[int]
) -> float:
    """What the token costs: the longest end of the history that was followed by it before."""
    if token in breakers:
        return 0.0
    longest = 0
    for length in range(1, len(history)):
        end = list(history[-length:])
        if breakers & set(end):
            break
        for start in range(len(history) - length):
            if list(history[start : start + length]) == end and history[start + length] == token:
                longest = max(longest, length)
    return multiplier * base ** (longest - allowed) if longest >= allowed else 0.0


def chain(
    z: Logits, s: SamplingSettings, history: Sequence[int], coin: float, mu: float, breakers: set[int]
) -> dict[str, Logits]:
    """The logits after each stage of the settings' order, neutral stages included."""
    after: dict[str, Logits] = {}
    seen = history[-s.repetition_window :] if s.repetition_window else history
    cut = s.mirostat_tau == 0 or "mirostat" not in s.order
    for stage in s.order:
        if stage == "bias":
            before, banned = z, set(s.banned)
            z = [NONE if i in banned else x + s.logit_bias.get(i, 0.0) for i, x in enumerate(before)]
            z = keep(before, [False] * len(z)) if max(z) == NONE else z
        elif stage == "no_repeat_ngram" and s.no_repeat_ngram:
            z = no_repeat_ngram(z, history, s.no_repeat_ngram)
        elif stage == "repetition":
            z = repetition(z, seen, s.repetition)
        elif stage == "presence_frequency":
            z = presence_frequency(z, seen, s.presence, s.frequency)
        elif stage == "dry" and s.dry_multiplier:
            dry = (s.dry_multiplier, s.dry_base, s.dry_allowed, breakers)
            z = [x - dry_penalty(history, token, *dry) for token, x in enumerate(z)]
        elif stage == "top_n_sigma" and cut:
            z = top_n_sigma(z, s.top_n_sigma)
        elif stage == "top_k" and cut:
            z = top_k(z, s.top_k)
        elif stage == "typical" and cut:
            z = typical(z, s.typical)
        elif stage == "top_p" and cut:
            z = top_p(z, s.top_p)
        elif stage == "min_p" and cut:
            z = min_p(z, s.min_p)
        elif stage == "epsilon" and cut:
            z = epsilon(z, s.epsilon)
        elif stage == "eta" and cut and s.eta:
            z = eta(z, s.eta)
        elif stage == "xtc" and cut:
            z = xtc(z, coin, s.xtc_chance, s.xtc_threshold)
        elif stage == "dynamic_temperature" and s.dynamic_range:
            z = dynamic_temperature(z, s.temperature, s.dynamic_range, s.dynamic_exponent)
        elif stage == "temperature" and not (s.dynamic_range and "dynamic_temperature" in s.order):
            z = temperature(z, s.temperature)
        elif stage == "mirostat" and not cut:
            z = mirostat(z, mu)
        after[stage] = z
    return after
