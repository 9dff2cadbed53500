"""Multi-head attention: every token asks, every token it may see answers.

Letters: B batch, T queries, S keys, D d_model, H heads, K key/value heads, d head size.

A mask is boolean and True where a query may look at a key, broadcastable to (B, H, T, S).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tfm.core.config import ModelConfig
from tfm.core.positions import Rotary, rotate


def causal_mask(n_tokens: int, window: int | None = None, device: torch.device | str = "cpu") -> Tensor:
    """(1, 1, T, T): a token sees itself and those before it, at most ``window`` in all."""
    mask = torch.ones(n_tokens, n_tokens, dtype=torch.bool, device=device).tril()
    if window is not None:
        mask = mask.triu(1 - window)
    return mask[None, None]


def padding_mask(real_BS: Tensor) -> Tensor | None:
    """(B, S), True where a token is real -> (B, 1, 1, S), or None if there is no padding."""
    return None if bool(real_BS.all()) else real_BS[:, None, None, :]


class MultiHeadAttention(nn.Module):
    """Self- and cross-attention with any number of key/value heads.

    Attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V in H heads side by side (Vaswani et al. 2017);
    with K < H heads for keys and values it is grouped-query attention (Ainslie et al. 2023), with
    K = 1 multi-query attention (Shazeer 2019).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = config.n_heads, config.kv_heads, config.head_dim
        q_width, kv_width = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        self.q_proj = nn.Linear(config.d_model, q_width, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.d_model, kv_width, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.d_model, kv_width, bias=config.qkv_bias)
        self.out_proj = nn.Linear(q_width, config.d_model, bias=config.out_bias)
        self.q_norm = nn.RMSNorm(self.head_dim, eps=config.norm_eps) if config.qk_norm else None
        self.k_norm = nn.RMSNorm(self.head_dim, eps=config.norm_eps) if config.qk_norm else None

    def queries(self, x_BTD: Tensor, rotary: Rotary | None = None) -> Tensor:
        """(B, T, D) -> (B, H, T, d)."""
        q_BHTd = self._split(self.q_proj(x_BTD), self.n_heads)
        if self.q_norm is not None:
            q_BHTd = self.q_norm(q_BHTd)
        return q_BHTd if rotary is None else rotate(q_BHTd, rotary)

    def keys_values(self, x_BSD: Tensor, rotary: Rotary | None = None) -> tuple[Tensor, Tensor]:
        """(B, S, D) -> keys and values, each (B, K, S, d)."""
        k_BKSd = self._split(self.k_proj(x_BSD), self.n_kv_heads)
        if self.k_norm is not None:
            k_BKSd = self.k_norm(k_BKSd)
        if rotary is not None:
            k_BKSd = rotate(k_BKSd, rotary)
        return k_BKSd, self._split(self.v_proj(x_BSD), self.n_kv_heads)

    def forward(
        self, q_BHTd: Tensor, k_BKSd: Tensor, v_BKSd: Tensor, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Attend and mix the heads: -> (B, T, D). ``causal`` needs T = S and no mask."""
        if q_BHTd.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            # Over short rows bfloat16 attention is many times slower than float32 on a CPU.
            with torch.autocast("cpu", enabled=False):
                heads_BHTd = self._attend(q_BHTd.float(), k_BKSd.float(), v_BKSd.float(), mask, causal)
        else:
            heads_BHTd = self._attend(q_BHTd, k_BKSd, v_BKSd, mask, causal)
        mixed: Tensor = self.out_proj(heads_BHTd.transpose(1, 2).flatten(2))
        return mixed

    def _attend(
        self, q_BHTd: Tensor, k_BKSd: Tensor, v_BKSd: Tensor, mask: Tensor | None, causal: bool
    ) -> Tensor:
        grouped = self.n_heads != self.n_kv_heads
        return F.scaled_dot_product_attention(
            q_BHTd, k_BKSd, v_BKSd, attn_mask=mask, is_causal=causal, enable_gqa=grouped
        )

    def weights(
        self, q_BHTd: Tensor, k_BKSd: Tensor, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """The attention map (B, H, T, S) that :meth:`forward` uses and never stores; for looking at."""
        groups = self.n_heads // self.n_kv_heads
        k_BHSd = k_BKSd.repeat_interleave(groups, dim=1)
        scores = q_BHTd.float() @ k_BHSd.float().transpose(2, 3) / math.sqrt(self.head_dim)
        if causal:
            mask = causal_mask(scores.shape[2], device=scores.device)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return scores.softmax(dim=-1)

    def _split(self, x_BTD: Tensor, n_heads: int) -> Tensor:
        n_lanes, n_tokens, _ = x_BTD.shape
        return x_BTD.view(n_lanes, n_tokens, n_heads, self.head_dim).transpose(1, 2)
