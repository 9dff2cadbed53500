"""The chain: runs the stages in each lane's order, draws, and says what every stage did.

Letters: B lanes, V vocabulary, K candidates that are still looked at.

Lanes whose settings run the same stages go through them together, as rows of one tensor. Once a
stage has removed most tokens the rest move closer together (:meth:`_Pool.compact`), so that what
follows, the draw included, costs what is left and not the vocabulary. Noise is keyed by token id and
columns stay in order of token id, so this changes no result.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from tfm.core.sampling import history, noise, stages
from tfm.core.sampling.settings import SamplingSettings, plan

Breakers = Callable[[tuple[str, ...]], Collection[int]]
"""From dry's breaker strings to the ids of the tokens in which one of them occurs."""

_REMOVES_NOTHING = frozenset(("repetition", "presence_frequency", "dry", "dynamic_temperature"))
_REMOVED_SHOWN = 5  # tokens a stage's report names
_COMPACT_FROM = 64  # narrower than this, moving candidates costs more than it saves


@dataclass(frozen=True, slots=True)
class LaneState:
    """All that the next token of a lane depends on, apart from its logits."""

    settings: SamplingSettings
    seed: int
    position: int  # index of the token to draw; with the seed it keys the noise
    history: Sequence[int] = ()  # see tfm.core.sampling.history
    mu: float | None = None  # mirostat's surprise limit in bits; None: not begun


@dataclass(frozen=True, slots=True)
class Rival:
    """A token that could have been: its raw and final probability, and what removed it."""

    token: int
    raw: float
    final: float
    removed_by: str = ""


@dataclass(frozen=True, slots=True)
class StageEffect:
    """What one stage did in one lane."""

    stage: str
    left: int  # tokens
    mass: float  # raw probability of what is left
    entropy_before: float  # nats, of this stage's p
    entropy_after: float
    removed: tuple[int, ...] = ()  # the most probable tokens it removed, at most 5


@dataclass(frozen=True, slots=True)
class Draw:
    """The token drawn for one lane and what is known about it."""

    token: int
    logprob: float  # nats, raw
    entropy: float  # nats, raw
    probability: float  # final
    mu: float | None = None  # mirostat's limit for the next token
    top: tuple[Rival, ...] = ()  # the n_top most probable tokens, by raw probability
    trace: tuple[StageEffect, ...] = ()


def sample(
    logits_BV: Tensor,
    lanes: Sequence[LaneState],
    *,
    n_top: int = 0,
    trace: bool = False,
    breakers: Breakers = lambda strings: (),
) -> list[Draw]:
    """Draw the next token of each lane: argmax over the survivors of z + Gumbel(seed, position, id).

    Args:
        logits_BV: (B, V), any float type; row i belongs to ``lanes[i]``.
        n_top: how many of the most probable tokens to report.
        trace: report every stage.
        breakers: finds the tokens that dry does not reach across.

    Raises:
        ValueError: for NaN or infinite logits, and for a bias on a token that does not exist.
    """
    if logits_BV.device.type == "mps":  # has no float64
        logits_BV = logits_BV.cpu()
    plans = [plan(lane.settings) for lane in lanes]
    draws: dict[int, Draw] = {}
    for stages_, group in groupby(sorted(range(len(lanes)), key=plans.__getitem__), key=plans.__getitem__):
        rows = list(group)
        chosen = logits_BV if len(rows) == len(lanes) else logits_BV[rows]
        run = _Run([lanes[row] for row in rows], chosen, breakers)
        draws.update(zip(rows, run.draw(stages_, n_top, trace), strict=True))
    return [draws[row] for row in range(len(lanes))]


@dataclass(frozen=True)
class _Pool:
    """The candidates of each lane: ids and logits, (B, K), ids ascending."""

    ids: Tensor
    z: Tensor
    moved: bool = False  # a token no longer stands in the column of its own id

    def compact(self) -> _Pool:
        """The same survivors in fewer columns; lanes with fewer of them end in -inf."""
        if self.z.shape[1] < _COMPACT_FROM:
            return self
        left = self.z > float("-inf")
        left_B = stages.count(left)[:, 0]
        n_left = int(left_B.max())
        if 2 * n_left > self.z.shape[1]:
            return self
        rows, columns = left.nonzero(as_tuple=True)  # lane by lane
        slots = torch.arange(len(rows), device=rows.device) - (left_B.cumsum(0) - left_B)[rows]
        ids = self.ids.new_zeros((len(self.z), n_left))
        z = self.z.new_full((len(self.z), n_left), float("-inf"))
        ids[rows, slots], z[rows, slots] = self.ids[rows, columns], self.z[rows, columns]
        return _Pool(ids, z, moved=True)

    def find(self, tokens_Bn: Tensor) -> tuple[Tensor, Tensor]:
        """The columns of tokens, and whether each is still there: (B, n) both."""
        if not self.moved:
            return tokens_Bn, self.z.gather(-1, tokens_Bn) > float("-inf")
        here = (self.ids[:, None] == tokens_Bn[:, :, None]) & (self.z > float("-inf"))[:, None]
        return here.to(torch.uint8).argmax(-1), here.any(-1)


class _Run:
    """One step of lanes that share a plan."""

    def __init__(self, lanes: Sequence[LaneState], logits_BV: Tensor, breakers: Breakers) -> None:
        self.lanes, self.breakers = lanes, breakers
        self.z_BV = logits_BV.double()
        self.n_vocab = logits_BV.shape[1]
        if not bool(self.z_BV.amax(-1).isfinite().all()):  # NaN wins every maximum
            raise ValueError(
                "the model's logits hold NaN or infinity; try precision fp32 or another checkpoint"
            )
        self.raw_BV = self.z_BV.log_softmax(-1)
        self.surprises: tuple[_Pool, Tensor] | None = None  # what mirostat saw

    def draw(self, plan: Sequence[str], n_top: int, trace: bool) -> list[Draw]:
        top_Bn = self._most_probable(min(n_top, self.n_vocab))
        ids_BV = torch.arange(self.n_vocab, device=self.z_BV.device).expand_as(self.z_BV)
        pool, alive, effects = _Pool(ids_BV, self.z_BV), [], []
        for stage in plan:
            after = _Pool(pool.ids, stages.keep_one(pool.z, self._apply(stage, pool)), pool.moved)
            if trace:
                effects.append(self._effects(stage, pool, after))
            if n_top:
                alive.append(after.find(top_Bn)[1])
            pool = after.compact() if stage not in _REMOVES_NOTHING else after

        scores_BK = pool.z
        if pool.z.shape[1] > 1:
            seeds, positions = [lane.seed for lane in self.lanes], [lane.position for lane in self.lanes]
            scores_BK = pool.z + noise.gumbel(seeds, positions, pool.ids)
        tokens_B1 = pool.ids.gather(-1, scores_BK.argmax(-1, keepdim=True))
        final_BK = pool.z.softmax(-1)
        rivals = self._rivals(top_Bn, plan, alive, pool, final_BK) if n_top else [()] * len(self.lanes)
        columns_B1, _ = pool.find(tokens_B1)
        rows = zip(
            _floats(tokens_B1),
            _floats(self.raw_BV.gather(-1, tokens_B1)),
            _floats(stages.nats(self.raw_BV)),
            _floats(final_BK.gather(-1, columns_B1)),
            self._next_mu(tokens_B1),
            rivals,
            zip(*effects, strict=True) if effects else [()] * len(self.lanes),
            strict=True,
        )
        return [Draw(int(token), *known) for token, *known in rows]

    def _apply(self, stage: str, pool: _Pool) -> Tensor:
        z, column = pool.z, self._column
        match stage:
            case "bias":
                return stages.shift(z, self._table(pool, self._biases))
            case "no_repeat_ngram":
                return stages.shift(z, self._table(pool, _completions))
            case "repetition":
                return stages.repetition(z, self._table(pool, _counts), column("repetition"))
            case "presence_frequency":
                seen = self._table(pool, _counts)
                return stages.presence_frequency(z, seen, column("presence"), column("frequency"))
            case "dry":
                return stages.shift(z, self._table(pool, self._dry))
            case "top_n_sigma":
                return stages.top_n_sigma(z, column("top_n_sigma"))
            case "top_k":
                return stages.top_k(z, column("top_k"))
            case "typical":
                return stages.typical(z, column("typical"))
            case "top_p":
                return stages.top_p(z, column("top_p"))
            case "min_p":
                return stages.min_p(z, column("min_p"))
            case "epsilon":
                return stages.epsilon(z, column("epsilon"))
            case "eta":
                return stages.eta(z, column("eta"))
            case "xtc":
                return stages.xtc(z, self._coin(), column("xtc_chance"), column("xtc_threshold"))
            case "dynamic_temperature":
                spread, exponent = column("dynamic_range"), column("dynamic_exponent")
                return stages.dynamic_temperature(z, column("temperature"), spread, exponent)
            case "temperature":
                return stages.temperature(z, column("temperature"))
            case "mirostat":
                self.surprises = (pool, stages.surprise(z))
                return stages.mirostat(z, self._numbers([_mu(lane) for lane in self.lanes]))
        raise AssertionError(f"no stage {stage!r}")

    # ------------------------------------------------------------------ a stage's parameters
    def _numbers(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=self.z_BV.device)[:, None]

    def _column(self, name: str) -> Tensor:
        """One setting of every lane, (B, 1)."""
        return self._numbers([getattr(lane.settings, name) for lane in self.lanes])

    def _coin(self) -> Tensor:
        seeds, positions = [lane.seed for lane in self.lanes], [lane.position for lane in self.lanes]
        return noise.uniform(seeds, positions, torch.tensor([noise.CHANCE], device=self.z_BV.device))

    def _table(self, pool: _Pool, read: Callable[[LaneState], Mapping[int, float]]) -> Tensor:
        """One number for each candidate of each lane, (B, K), 0 where ``read`` names none."""
        found = [read(lane) for lane in self.lanes]
        table_BV = torch.zeros_like(self.z_BV)
        for row, numbers in enumerate(found):
            if numbers:
                ids = torch.tensor(list(numbers), device=table_BV.device)
                table_BV[row, ids] = torch.tensor(list(numbers.values()), dtype=torch.float64).to(
                    table_BV.device
                )
        return table_BV.gather(-1, pool.ids) if pool.moved else table_BV

    def _biases(self, lane: LaneState) -> Mapping[int, float]:
        changes = lane.settings.logit_bias | dict.fromkeys(lane.settings.banned, float("-inf"))
        for token in changes:
            if not 0 <= token < self.n_vocab:
                raise ValueError(
                    f"logit_bias or banned names token {token}; the vocabulary ends at {self.n_vocab - 1}"
                )
        return changes

    def _dry(self, lane: LaneState) -> Mapping[int, float]:
        s = lane.settings
        breakers = self.breakers(s.dry_breakers)
        off = history.dry_penalties(lane.history, s.dry_multiplier, s.dry_base, s.dry_allowed, breakers)
        return {token: -nats for token, nats in off.items()}

    # ------------------------------------------------------------------ reports
    def _most_probable(self, n: int) -> Tensor:
        """Ids of the n most probable tokens, most probable first, of equal ones the lower: (B, n)."""
        if n == 0:
            return self.z_BV.new_zeros((len(self.lanes), 0), dtype=torch.int64)
        n_B1 = torch.full((len(self.lanes), 1), n, device=self.z_BV.device)
        ids_Bn = stages.largest(self.z_BV, n_B1).nonzero()[:, 1].view(-1, n)
        order_Bn = self.z_BV.gather(-1, ids_Bn).argsort(dim=-1, descending=True, stable=True)
        return ids_Bn.gather(-1, order_Bn)

    def _rivals(
        self, top_Bn: Tensor, plan: Sequence[str], alive: list[Tensor], pool: _Pool, final_BK: Tensor
    ) -> list[tuple[Rival, ...]]:
        columns_Bn, here_Bn = pool.find(top_Bn)
        final_Bn = final_BK.gather(-1, columns_Bn) * here_Bn
        n_stages_Bn = sum((mask.long() for mask in alive), torch.zeros_like(top_Bn))  # survived
        names = (*plan, "")
        return [
            tuple(Rival(token, raw, final, names[n]) for token, raw, final, n in zip(*lane, strict=True))
            for lane in zip(
                top_Bn.tolist(),
                self.raw_BV.gather(-1, top_Bn).exp().tolist(),
                final_Bn.tolist(),
                n_stages_Bn.tolist(),
                strict=True,
            )
        ]

    def _effects(self, stage: str, before: _Pool, after: _Pool) -> list[StageEffect]:
        raw_BK = self.raw_BV.gather(-1, before.ids) if before.moved else self.raw_BV
        left = after.z > float("-inf")
        gone = (before.z > float("-inf")) & ~left
        worst = raw_BK.masked_fill(~gone, float("-inf")).sort(dim=-1, descending=True, stable=True).indices
        return [
            StageEffect(
                stage, int(n_left), mass, h_before, h_after, tuple(ids[: min(int(n_gone), _REMOVED_SHOWN)])
            )
            for n_left, mass, h_before, h_after, n_gone, ids in zip(
                _floats(stages.count(left)),
                _floats((raw_BK.exp() * left).sum(-1, keepdim=True)),
                _floats(stages.entropy(before.z)),
                _floats(stages.entropy(after.z)),
                _floats(stages.count(gone)),
                before.ids.gather(-1, worst[:, :_REMOVED_SHOWN]).tolist(),
                strict=True,
            )
        ]

    def _next_mu(self, tokens_B1: Tensor) -> list[float | None]:
        """mu - eta (S - tau), S being the surprise of the drawn token before mirostat cut."""
        if self.surprises is None:
            return [None] * len(self.lanes)
        pool, surprise_BK = self.surprises
        seen = _floats(surprise_BK.gather(-1, pool.find(tokens_B1)[0]))
        return [
            _mu(lane) - lane.settings.mirostat_eta * (s - lane.settings.mirostat_tau)
            for lane, s in zip(self.lanes, seen, strict=True)
        ]


def _mu(lane: LaneState) -> float:
    return 2.0 * lane.settings.mirostat_tau if lane.mu is None else lane.mu


def _counts(lane: LaneState) -> Mapping[int, float]:
    return history.counts(lane.history, lane.settings.repetition_window)


def _completions(lane: LaneState) -> Mapping[int, float]:
    return dict.fromkeys(history.completions(lane.history, lane.settings.no_repeat_ngram), float("-inf"))


def _floats(column_B1: Tensor) -> list[float]:
    numbers: list[float] = column_B1[:, 0].tolist()
    return numbers
