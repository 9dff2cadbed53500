"""The three families: the cached path equals the full forward, padding changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.models import small_config, small_model
from tfm.core.checkpoint import weights_of
from tfm.core.config import ModelConfig, RopeScaling
from tfm.core.kv_cache import KVCache
from tfm.core.model import DecoderOnly, EncoderDecoder, assemble_model

TOLERANCE = 2e-5  # absolute on logits, float32

VARIANTS: list[dict[str, Any]] = [
    {},
    {"norm_position": "post"},
    {"positions": "rotary", "norm": "rmsnorm", "qkv_bias": False, "out_bias": False, "ff_bias": False},
    {
        "positions": "rotary",
        "rope_scaling": RopeScaling(kind="llama3", factor=8.0, original_max_positions=16),
    },
    {"positions": "learned", "activation": "gelu_tanh", "scale_embeddings": True},
    {
        "positions": "rotary",
        "n_kv_heads": 2,
        "d_head": 6,
        "qk_norm": True,
        "activation": "silu",
        "gated_ff": True,
    },
    {"positions": "rotary", "sliding_window": 3},
    {"tie_output": False, "output_bias": True, "sinusoidal_layout": "halves-t2t", "position_offset": 1},
]


def ids(*shape: int) -> torch.Tensor:
    return torch.randint(4, 61, shape)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: ",".join(v) or "default")
@pytest.mark.parametrize("family", ["encoder-decoder", "decoder-only"])
def test_cached_equals_full_forward(family: str, variant: dict[str, Any]) -> None:
    model = small_model(family, **variant)
    tokens, cache = ids(3, 11), KVCache.create(model.config, 3, 4)  # grows on the way
    if isinstance(model, EncoderDecoder):
        source, real = ids(3, 6), torch.ones(3, 6, dtype=torch.bool)
        real[1, 4:] = False
        full = model(source, tokens, real)
        model.prepare(cache, model.encode(source, real), real)
    else:
        assert isinstance(model, DecoderOnly)
        full = model(tokens)
    steps = []
    for start, end in ((0, 5), (5, 6), (6, 9), (9, 10), (10, 11)):
        steps.append(model.project(model.decode(tokens[:, start:end], cache=cache)))
        cache.advance(end - start)
    torch.testing.assert_close(torch.cat(steps, 1), full, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: ",".join(v) or "default")
def test_lanes_of_different_length_in_one_cache(variant: dict[str, Any]) -> None:
    model = small_model("decoder-only", **variant)
    assert isinstance(model, DecoderOnly)
    rows, lengths = ids(3, 9), [9, 4, 6]
    cache = KVCache.create(model.config, 3, 16)
    first = model.project(model.decode(rows, cache=cache))
    cache.advance(lengths)
    more = ids(3, 1)
    second = model.project(model.decode(more, cache=cache))
    for lane, length in enumerate(lengths):
        alone = model(torch.cat((rows[lane : lane + 1, :length], more[lane : lane + 1]), 1))
        torch.testing.assert_close(first[lane, :length], alone[0, :length], atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(second[lane, 0], alone[0, length], atol=TOLERANCE, rtol=0)


@given(data=st.data())
@settings(deadline=None, max_examples=25)
def test_crop_select_and_go_on_equal_a_fresh_start(data: st.DataObject) -> None:
    model = small_model("decoder-only", positions="rotary")
    assert isinstance(model, DecoderOnly)
    torch.manual_seed(data.draw(st.integers(0, 99)))
    rows = ids(3, 8)
    cache = KVCache.create(model.config, 3, 8)
    with torch.inference_mode():
        model.decode(rows, cache=cache)
        cache.advance(8)
        kept = [data.draw(st.integers(1, 8)) for _ in range(3)]
        cache.crop(kept)
        lanes = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=5))
        chosen, more = cache.select(lanes), ids(len(lanes), 2)
        logits = model.project(model.decode(more, cache=chosen))
        for row, lane in enumerate(lanes):
            alone = model(torch.cat((rows[lane, : kept[lane]], more[row]))[None])[0, -2:]
            torch.testing.assert_close(logits[row], alone, atol=TOLERANCE, rtol=0)


def test_select_carries_the_memory() -> None:
    model = small_model()
    assert isinstance(model, EncoderDecoder)
    source, real, tokens = ids(2, 5), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]).bool(), ids(2, 3)
    cache = KVCache.create(model.config, 2, 8)
    model.prepare(cache, model.encode(source, real), real)
    model.decode(tokens[:, :2], cache=cache)
    cache.advance(2)
    swapped = cache.select([1, 0, 1])
    logits = model.project(model.decode(tokens[[1, 0, 1], 2:], cache=swapped))[:, 0]
    torch.testing.assert_close(logits, model(source, tokens, real)[[1, 0, 1], 2], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: ",".join(v) or "default")
def test_padding_never_changes_a_result(variant: dict[str, Any]) -> None:
    variant = {name: value for name, value in variant.items() if name != "sliding_window"}
    translator = small_model(**variant)
    source, target = ids(1, 5), ids(1, 4)
    padded = torch.cat((source, torch.zeros(1, 3, dtype=torch.long)), 1)
    real = torch.arange(8)[None] < 5
    assert isinstance(translator, EncoderDecoder)
    torch.testing.assert_close(
        translator(padded, target, real), translator(source, target), atol=TOLERANCE, rtol=0
    )
    reader = small_model("encoder-only", **variant)
    torch.testing.assert_close(reader(padded, real)[:, :5], reader(source), atol=TOLERANCE, rtol=0)


def test_a_token_sees_no_later_one() -> None:
    model = small_model("decoder-only")
    tokens = ids(1, 8)
    changed = tokens.clone()
    changed[0, 5:] = 7
    assert torch.equal(model(tokens)[:, :5], model(changed)[:, :5])
    assert not torch.equal(model(tokens)[:, 5:], model(changed)[:, 5:])


@pytest.mark.parametrize("family", ["encoder-decoder", "decoder-only", "encoder-only"])
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: ",".join(v) or "default")
def test_assembled_from_its_weights(family: str, variant: dict[str, Any]) -> None:
    model = small_model(family, **variant)
    twin = assemble_model(model.config, weights_of(model))
    inputs = (ids(2, 5), ids(2, 4)) if family == "encoder-decoder" else (ids(2, 5),)
    assert torch.equal(twin(*inputs), model(*inputs))
    assert len(list(twin.parameters())) == len(list(model.parameters()))


def test_assemble_names_what_is_wrong() -> None:
    model = small_model()
    weights = weights_of(model)
    missing = {name: tensor for name, tensor in weights.items() if name != "decoder_norm.weight"}
    with pytest.raises(ValueError, match=r"decoder_norm\.weight is missing"):
        assemble_model(model.config, missing)
    with pytest.raises(ValueError, match=r"decoder_norm\.weight has shape \[3\].*\[32\]"):
        assemble_model(model.config, {**weights, "decoder_norm.weight": torch.ones(3)})
    with pytest.raises(ValueError, match="stranger has no place"):
        assemble_model(model.config, {**weights, "stranger": torch.ones(3)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 30}, "d_model .30. must be a multiple of n_heads .4."),
        ({"n_kv_heads": 3}, "n_heads .4. must be a multiple of n_kv_heads .3."),
        (
            {"n_encoder_layers": 0},
            "encoder-decoder needs n_encoder_layers of at least 1 and n_decoder_layers of at",
        ),
        ({"dropout": 1.0}, "dropout must lie in"),
        ({"eos_id": 61}, "eos_id must lie in"),
        ({"d_model": "wide"}, "d_model"),
        ({"colour": 1}, "colour"),
        ({"positions": "rotary", "d_head": 7}, "even head size"),
    ],
)
def test_config_refuses_what_does_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_config(**changes)


def test_config_json_round_trip() -> None:
    config = small_config(
        rope_scaling=RopeScaling(kind="linear", factor=2.0), positions="rotary", eos_ids=(3, 4)
    )
    assert ModelConfig.from_json(config.to_json()) == config
    assert config.stop_ids == (2, 3, 4)
