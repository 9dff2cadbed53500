"""Our attention and layers are bound to PyTorch's own: same weights in, same numbers out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tests.core.models import small_config, small_model
from tfm.core.attention import MultiHeadAttention, causal_mask, padding_mask
from tfm.core.layers import Context, DecoderLayer, Dropout, EncoderLayer

TOLERANCE = 1e-5  # absolute, float32


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0)


def copy_attention(ours: MultiHeadAttention, theirs: nn.MultiheadAttention) -> None:
    projections = (ours.q_proj, ours.k_proj, ours.v_proj)
    with torch.no_grad():
        for part, projection in zip(theirs.in_proj_weight.chunk(3), projections, strict=True):
            part.copy_(projection.weight)
        for part, projection in zip(theirs.in_proj_bias.chunk(3), projections, strict=True):
            part.copy_(projection.bias)
        theirs.out_proj.load_state_dict(ours.out_proj.state_dict())


def make_attention() -> tuple[MultiHeadAttention, nn.MultiheadAttention]:
    torch.manual_seed(0)
    ours, theirs = MultiHeadAttention(small_config()), nn.MultiheadAttention(32, 4, batch_first=True)
    copy_attention(ours, theirs)
    return ours, theirs


def attend(attention: MultiHeadAttention, x: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
    result: Tensor = attention(attention.queries(x), *attention.keys_values(source), mask)
    return result


@pytest.mark.parametrize("crossing", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_multihead_attention(crossing: bool, masked: bool) -> None:
    ours, theirs = make_attention()
    x = torch.randn(3, 6, 32)
    source = torch.randn(3, 9, 32) if crossing else x
    real = torch.ones(3, source.shape[1], dtype=torch.bool)
    if masked:
        real[0, 4:], real[2, 1:] = False, False
    expected, weights = theirs(x, source, source, key_padding_mask=~real, average_attn_weights=False)
    mask = padding_mask(real)
    close(attend(ours, x, source, mask), expected)
    close(ours.weights(ours.queries(x), ours.keys_values(source)[0], mask), weights)


def test_equals_scaled_dot_product_attention() -> None:
    ours, _ = make_attention()
    x = torch.randn(2, 7, 32)
    q, (k, v) = ours.queries(x), ours.keys_values(x)
    core = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    expected = ours.out_proj(core.transpose(1, 2).reshape(2, 7, 32))
    close(ours(q, k, v, causal=True), expected)
    close(ours(q, k, v, causal_mask(7)), expected)
    by_hand = (ours.weights(q, k, causal=True) @ v).transpose(1, 2).reshape(2, 7, 32)
    close(ours.out_proj(by_hand), expected)


@pytest.mark.parametrize("n_kv_heads", [1, 2])
def test_grouped_queries_equal_repeated_heads(n_kv_heads: int) -> None:
    torch.manual_seed(1)
    grouped, full = (
        MultiHeadAttention(small_config(n_kv_heads=n_kv_heads)),
        MultiHeadAttention(small_config()),
    )
    full.q_proj.load_state_dict(grouped.q_proj.state_dict())
    full.out_proj.load_state_dict(grouped.out_proj.state_dict())
    with torch.no_grad():
        for name in ("k_proj", "v_proj"):
            few, many = getattr(grouped, name), getattr(full, name)
            repeats = 4 // n_kv_heads
            many.weight.copy_(
                few.weight.unflatten(0, (n_kv_heads, 8)).repeat_interleave(repeats, 0).flatten(0, 1)
            )
            many.bias.copy_(few.bias.unflatten(0, (n_kv_heads, 8)).repeat_interleave(repeats, 0).flatten())
    x = torch.randn(2, 5, 32)
    close(attend(grouped, x, x, causal_mask(5)), attend(full, x, x, causal_mask(5)))


@given(n_tokens=st.integers(1, 12), window=st.none() | st.integers(1, 14))
@settings(deadline=None)
def test_causal_mask(n_tokens: int, window: int | None) -> None:
    mask = causal_mask(n_tokens, window)[0, 0]
    for query in range(n_tokens):
        for key in range(n_tokens):
            expected = key <= query and (window is None or query - key < window)
            assert bool(mask[query, key]) == expected


def copy_norm(ours: nn.Module, theirs: nn.Module) -> None:
    theirs.load_state_dict(ours.state_dict())


@pytest.mark.parametrize("position", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_encoder_layer_equals_torch(position: str, activation: str) -> None:
    torch.manual_seed(2)
    ours = EncoderLayer(small_config(norm_position=position, activation=activation)).eval()
    theirs = nn.TransformerEncoderLayer(
        32, 4, 48, 0.0, activation, batch_first=True, norm_first=position == "pre"
    ).eval()
    copy_attention(ours.self_attention, theirs.self_attn)
    copy_norm(ours.self_residual.norm, theirs.norm1)
    copy_norm(ours.ff_residual.norm, theirs.norm2)
    theirs.linear1.load_state_dict(ours.feed_forward.up.state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward.down.state_dict())
    x, real = torch.randn(3, 6, 32), torch.ones(3, 6, dtype=torch.bool)
    real[1, 3:] = False
    expected = theirs(x, src_key_padding_mask=~real)
    close(ours(x, padding_mask(real))[real], expected[real])


@pytest.mark.parametrize("position", ["pre", "post"])
def test_decoder_layer_equals_torch(position: str) -> None:
    torch.manual_seed(3)
    ours = DecoderLayer(small_config(norm_position=position), 0).eval()
    theirs = nn.TransformerDecoderLayer(32, 4, 48, 0.0, batch_first=True, norm_first=position == "pre").eval()
    assert ours.cross_attention is not None and ours.cross_residual is not None
    copy_attention(ours.self_attention, theirs.self_attn)
    copy_attention(ours.cross_attention, theirs.multihead_attn)
    for mine, other in (
        (ours.self_residual, theirs.norm1),
        (ours.cross_residual, theirs.norm2),
        (ours.ff_residual, theirs.norm3),
    ):
        copy_norm(mine.norm, other)
    theirs.linear1.load_state_dict(ours.feed_forward.up.state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward.down.state_dict())
    x, memory = torch.randn(2, 5, 32), torch.randn(2, 7, 32)
    real = torch.ones(2, 7, dtype=torch.bool)
    real[0, 5:] = False
    expected = theirs(
        x, memory, tgt_mask=~causal_mask(5)[0, 0], memory_key_padding_mask=~real, tgt_is_causal=True
    )
    close(ours(x, Context(causal=True, memory=memory, memory_mask=padding_mask(real))), expected)


def test_whole_model_equals_torch_transformer() -> None:
    model = small_model()
    theirs = nn.Transformer(32, 4, 2, 2, 48, 0.0, batch_first=True, norm_first=True).eval()
    for ours, other in zip(model.encoder_layers, theirs.encoder.layers, strict=True):
        copy_attention(ours.self_attention, other.self_attn)
        pairs = ((ours.self_residual.norm, other.norm1), (ours.ff_residual.norm, other.norm2))
        for mine, its in (
            *pairs,
            (ours.feed_forward.up, other.linear1),
            (ours.feed_forward.down, other.linear2),
        ):
            copy_norm(mine, its)
    for ours, other in zip(model.decoder_layers, theirs.decoder.layers, strict=True):
        copy_attention(ours.self_attention, other.self_attn)
        copy_attention(ours.cross_attention, other.multihead_attn)
        for mine, its in (
            (ours.self_residual.norm, other.norm1),
            (ours.cross_residual.norm, other.norm2),
            (ours.ff_residual.norm, other.norm3),
            (ours.feed_forward.up, other.linear1),
            (ours.feed_forward.down, other.linear2),
        ):
            copy_norm(mine, its)
    copy_norm(model.encoder_norm, theirs.encoder.norm)
    copy_norm(model.decoder_norm, theirs.decoder.norm)
    source, target = torch.randint(4, 61, (2, 6)), torch.randint(4, 61, (2, 5))
    embed = model.source_embedding
    hidden = theirs(
        embed(source, torch.arange(6)[None]),
        embed(target, torch.arange(5)[None]),
        tgt_mask=~causal_mask(5)[0, 0],
        tgt_is_causal=True,
    )
    close(model(source, target), model.project(hidden))


@given(p=st.floats(0.05, 0.9), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_dropout_keeps_the_share_and_the_mean(p: float, seed: int) -> None:
    torch.manual_seed(seed)
    dropout = Dropout(p).train()
    out = dropout(torch.ones(101, 211))  # an odd count: the last draw serves fewer than eight
    kept = out != 0
    n, share = out.numel(), 1 - p
    assert abs(float(kept.float().mean()) - share) < 1 / 256 + 5 * (share * p / n) ** 0.5
    assert torch.all(out[kept] == out[kept][0])
    assert abs(float(out[kept][0]) - 1 / share) < 0.02 / share**2
    assert torch.equal(dropout.eval()(torch.ones(3)), torch.ones(3))
