"""KVCache: keys and values of the tokens a decoder has already seen.

Letters: B lanes, K key/value heads, T new tokens, S stored tokens, C capacity, d head size.

Each lane has a length of its own. New tokens come right-padded to a common T and are written at
each lane's own length; what padding leaves behind lies past the length, is hidden by the mask and
is overwritten by the next tokens. Unused slots are zeros: a mask gives them no weight, but no weight
times NaN would still be NaN. The model only writes; whoever drives it calls :meth:`advance`
with the number of real tokens, so a speculative call can simply not be counted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tfm.core.config import ModelConfig

_GROWTH = 64  # capacity is rounded up to a multiple of this


class KVCache:
    """Preallocated keys and values for self-attention, fixed ones for cross-attention."""

    def __init__(self, keys: list[Tensor], values: list[Tensor], lengths: list[int]) -> None:
        self.keys = keys  # a layer: (B, K, C, d)
        self.values = values
        self.lengths = lengths
        # A layer: keys and values (B, K, S_src, d); fewer rows than lanes where lanes share a source.
        self.cross: list[tuple[Tensor, Tensor]] = []
        self.cross_mask: Tensor | None = None  # (B, 1, 1, S_src), True where real; None: no padding

    @classmethod
    def create(
        cls,
        config: ModelConfig,
        n_lanes: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> KVCache:
        shape = (n_lanes, config.kv_heads, _round_up(capacity), config.head_dim)
        layers = range(config.n_decoder_layers)
        keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in layers]
        values = [torch.zeros(shape, dtype=dtype, device=device) for _ in layers]
        return cls(keys, values, [0] * n_lanes)

    @property
    def n_lanes(self) -> int:
        return len(self.lengths)

    @property
    def capacity(self) -> int:
        return self.keys[0].shape[2]

    @property
    def _uniform(self) -> bool:
        return min(self.lengths) == max(self.lengths)

    def positions(self, n_new: int) -> Tensor:
        """Positions of the next ``n_new`` tokens: (B, T), or (1, T) where all lanes agree."""
        steps = torch.arange(n_new, device=self.keys[0].device)
        if self._uniform:
            return (steps + self.lengths[0])[None]
        return steps + torch.tensor(self.lengths, device=steps.device)[:, None]

    def update(self, layer: int, k_BKTd: Tensor, v_BKTd: Tensor) -> tuple[Tensor, Tensor]:
        """Write new keys and values; return all of them, (B, K, S, d) with S = longest lane + T."""
        n_new = k_BKTd.shape[2]
        end = max(self.lengths) + n_new
        if end > self.capacity:
            self._grow(end)
        keys, values = self.keys[layer], self.values[layer]
        if self._uniform:
            keys[:, :, end - n_new : end] = k_BKTd
            values[:, :, end - n_new : end] = v_BKTd
        else:
            lanes = torch.arange(self.n_lanes, device=keys.device)[:, None]
            slots = self.positions(n_new)
            keys[lanes, :, slots] = k_BKTd.transpose(1, 2)
            values[lanes, :, slots] = v_BKTd.transpose(1, 2)
        return keys[:, :, :end], values[:, :, :end]

    def mask(self, n_new: int, window: int | None = None) -> Tensor | None:
        """Which stored token each new one may see: (B or 1, 1, T, S), or None if all of them."""
        if n_new == 1 and self._uniform and (window is None or self.lengths[0] < window):
            return None
        queries = self.positions(n_new)[:, None, :, None]
        stored = torch.arange(max(self.lengths) + n_new, device=queries.device)
        visible = stored <= queries
        return visible if window is None else visible & (stored > queries - window)

    def advance(self, counts: int | Sequence[int]) -> None:
        """Count new tokens as seen: the same number for every lane, or one number a lane."""
        steps = [counts] * self.n_lanes if isinstance(counts, int) else counts
        self.lengths = [length + step for length, step in zip(self.lengths, steps, strict=True)]

    def crop(self, lengths: Sequence[int]) -> None:
        """Forget all but the first tokens of each lane; nothing is copied."""
        assert all(new <= old for new, old in zip(lengths, self.lengths, strict=True))
        self.lengths = list(lengths)

    def select(self, lanes: Sequence[int], sources: Sequence[int] | None = None) -> KVCache:
        """A cache that holds these lanes in this order (repeats fork, omissions drop).

        ``sources`` are the rows of cross-attention to hold, each shared by equally many lanes in a row (the
        hypotheses of one source sentence); None: a row for each lane, picked as the lanes are.
        """
        index = torch.tensor(lanes, device=self.keys[0].device)
        lengths = [self.lengths[lane] for lane in lanes]
        used = max(lengths, default=0)
        chosen = KVCache(
            [self._pick(k, index, used) for k in self.keys],
            [self._pick(v, index, used) for v in self.values],
            lengths,
        )
        rows = index if sources is None else torch.tensor(sources, device=index.device)
        chosen.cross = [(k.index_select(0, rows), v.index_select(0, rows)) for k, v in self.cross]
        if self.cross_mask is not None:
            chosen.cross_mask = self.cross_mask.index_select(0, rows)
        return chosen

    def reorder(self, lanes: Sequence[int], sources: Sequence[int] | None = None) -> None:
        """Hold these lanes in this order, in place: a step of beam search. No more lanes than before.

        ``sources`` are the rows of cross-attention to hold; None: those that are there.
        """
        moved = [place for place, lane in enumerate(lanes) if lane != place]
        to = torch.tensor(moved, dtype=torch.int64, device=self.keys[0].device)
        index = torch.tensor([lanes[place] for place in moved], dtype=torch.int64, device=to.device)
        self.lengths = [self.lengths[lane] for lane in lanes]
        used = max(self.lengths)
        for stored in (self.keys, self.values):
            for layer, old in enumerate(stored):
                held = old[:, :, :used]
                held.index_copy_(0, to, held.index_select(0, index))
                stored[layer] = old[: len(lanes)]
        if sources is not None:
            rows = torch.tensor(sources, device=to.device)
            self.cross = [(k.index_select(0, rows), v.index_select(0, rows)) for k, v in self.cross]
            if self.cross_mask is not None:
                self.cross_mask = self.cross_mask.index_select(0, rows)

    def nbytes(self) -> int:
        """Memory held, in bytes."""
        cross = [tensor for pair in self.cross for tensor in pair]
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values, *cross))

    def _pick(self, stored: Tensor, index: Tensor, used: int) -> Tensor:
        picked = stored.new_zeros((len(index), *stored.shape[1:]))
        picked[:, :, :used] = stored[:, :, :used].index_select(0, index)
        return picked

    def _grow(self, needed: int) -> None:
        used = max(self.lengths)
        capacity = _round_up(max(needed, 2 * self.capacity))
        for stored in (self.keys, self.values):
            for layer, old in enumerate(stored):
                new = old.new_zeros((*old.shape[:2], capacity, old.shape[3]))
                new[:, :, :used] = old[:, :, :used]
                stored[layer] = new


def _round_up(capacity: int) -> int:
    return max(1, -(-capacity // _GROWTH)) * _GROWTH
