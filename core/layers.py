"""The parts that a Transformer stacks: feed-forward, norms, dropout, encoder and decoder layer.

Letters: B batch, T target tokens, S source tokens, D d_model, F d_ff.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tfm.core.attention import MultiHeadAttention
from tfm.core.config import Activation, ModelConfig
from tfm.core.kv_cache import KVCache
from tfm.core.positions import Rotary


def make_norm(config: ModelConfig) -> nn.Module:
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019) over D."""
    norm = nn.RMSNorm if config.norm == "rmsnorm" else nn.LayerNorm
    return norm(config.d_model, eps=config.norm_eps)


def activate(x: Tensor, name: Activation) -> Tensor:
    """The non-linearity between the two halves of a feed-forward block."""
    if name == "relu":
        return F.relu(x)
    if name == "silu":
        return F.silu(x)
    return F.gelu(x, approximate="tanh" if name == "gelu_tanh" else "none")


class Dropout(nn.Module):
    """Zero each element with probability p (to the nearest 1/256) and scale up the rest.

    On a CPU the random numbers cost more than the layer they regularise, so one 64-bit draw
    serves eight elements, a byte each; hence the rounding of p.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        keep = round((1.0 - self.p) * 256)
        draws = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = draws.view(torch.uint8)[: x.numel()].view(x.shape) < keep
        return x * kept.to(x.dtype).mul_(256 / keep)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class FeedForward(nn.Module):
    """down(act(up(x))), or gated: down(act(gate(x)) * up(x)) (Shazeer 2020, "GLU variants")."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.up = nn.Linear(config.d_model, config.d_ff, bias=config.ff_bias)
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=config.ff_bias) if config.gated_ff else None
        self.down = nn.Linear(config.d_ff, config.d_model, bias=config.ff_bias)
        self.dropout = Dropout(config.dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D), each token by itself."""
        if self.gate is None:
            hidden_BTF = activate(self.up(x_BTD), self.activation)
        else:
            hidden_BTF = activate(self.gate(x_BTD), self.activation) * self.up(x_BTD)
        out: Tensor = self.down(self.dropout(hidden_BTF))
        return out


class Residual(nn.Module):
    """A norm and a dropout around a sub-layer's skip connection.

    pre:  x + dropout(f(norm(x)))    trains without care (Xiong et al. 2020)
    post: norm(x + dropout(f(x)))    the original
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.pre = config.norm_position == "pre"
        self.norm = make_norm(config)
        self.dropout = Dropout(config.dropout)

    def enter(self, x_BTD: Tensor) -> Tensor:
        """What the sub-layer is fed with."""
        entered: Tensor = self.norm(x_BTD) if self.pre else x_BTD
        return entered

    def leave(self, x_BTD: Tensor, update_BTD: Tensor) -> Tensor:
        """The skip connection closed."""
        summed: Tensor = x_BTD + self.dropout(update_BTD)
        left: Tensor = summed if self.pre else self.norm(summed)
        return left


@dataclass(frozen=True)
class Context:
    """What every decoder layer of one call shares.

    ``self_mask`` (B or 1, 1, T, S) and ``causal`` say what a token may see among the target tokens;
    ``memory`` (B, S, D) is the encoder's output, ``memory_mask`` (B, 1, 1, S) its padding. With a
    cache, keys and values of both come from there.
    """

    self_mask: Tensor | None = None
    causal: bool = False
    rotary: Rotary | None = None
    memory: Tensor | None = None
    memory_mask: Tensor | None = None
    cache: KVCache | None = None


class EncoderLayer(nn.Module):
    """Self-attention over all tokens, then a feed-forward block."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(config)
        self.self_residual = Residual(config)
        self.feed_forward = FeedForward(config)
        self.ff_residual = Residual(config)

    def forward(self, x_BSD: Tensor, mask: Tensor | None = None, rotary: Rotary | None = None) -> Tensor:
        """(B, S, D) -> (B, S, D); ``mask`` broadcastable to (B, H, S, S)."""
        entered = self.self_residual.enter(x_BSD)
        queries = self.self_attention.queries(entered, rotary)
        keys, values = self.self_attention.keys_values(entered, rotary)
        x_BSD = self.self_residual.leave(x_BSD, self.self_attention(queries, keys, values, mask))
        return self.ff_residual.leave(x_BSD, self.feed_forward(self.ff_residual.enter(x_BSD)))


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention if there is an encoder, a feed-forward block."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.index = index
        crosses = config.family == "encoder-decoder"
        self.self_attention = MultiHeadAttention(config)
        self.self_residual = Residual(config)
        self.cross_attention = MultiHeadAttention(config) if crosses else None
        self.cross_residual = Residual(config) if crosses else None
        self.feed_forward = FeedForward(config)
        self.ff_residual = Residual(config)

    def forward(self, x_BTD: Tensor, context: Context) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x_BTD = self._attend_to_self(x_BTD, context)
        if self.cross_attention is not None:
            x_BTD = self._attend_to_memory(x_BTD, context)
        return self.ff_residual.leave(x_BTD, self.feed_forward(self.ff_residual.enter(x_BTD)))

    def _attend_to_self(self, x_BTD: Tensor, context: Context) -> Tensor:
        entered = self.self_residual.enter(x_BTD)
        queries = self.self_attention.queries(entered, context.rotary)
        keys, values = self.self_attention.keys_values(entered, context.rotary)
        if context.cache is not None:
            keys, values = context.cache.update(self.index, keys, values)
        update = self.self_attention(queries, keys, values, context.self_mask, context.causal)
        return self.self_residual.leave(x_BTD, update)

    def _attend_to_memory(self, x_BTD: Tensor, context: Context) -> Tensor:
        assert self.cross_attention is not None and self.cross_residual is not None
        queries = self.cross_attention.queries(self.cross_residual.enter(x_BTD))
        if context.cache is not None:
            (keys, values), mask = context.cache.cross[self.index], context.cache.cross_mask
        else:
            assert context.memory is not None, "an encoder-decoder needs a memory or a prepared cache"
            (keys, values), mask = self.cross_attention.keys_values(context.memory), context.memory_mask
        update = self.cross_attention(_side_by_side(queries, len(keys)), keys, values, mask)
        return self.cross_residual.leave(x_BTD, update.view_as(x_BTD))


def _side_by_side(q_BHTd: Tensor, n_rows: int) -> Tensor:
    """Queries of lanes that share a row of memory, in one row: (B, H, T, d) -> (n_rows, H, B/n_rows T, d)."""
    if len(q_BHTd) == n_rows:
        return q_BHTd
    return q_BHTd.reshape(n_rows, -1, *q_BHTd.shape[1:]).transpose(1, 2).flatten(2, 3)
