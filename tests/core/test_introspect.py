"""Scores, attention maps and mask filling against plain forward passes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tfm.core import introspect
from tfm.core.checkpoint import Checkpoint, load_checkpoint
from tfm.core.config import ModelConfig
from tfm.core.model import DecoderOnly, EncoderDecoder, EncoderOnly
from tfm.core.sampling.settings import SamplingSettings

SOURCE, TARGET = "A man in a blue shirt.", "Ein Mann in einem blauen Hemd."


@pytest.fixture(scope="module")
def translator(tiny_translator: Path) -> Checkpoint:
    return load_checkpoint(tiny_translator)


@pytest.fixture(scope="module")
def decoder(tiny_decoder: Path) -> Checkpoint:
    return load_checkpoint(tiny_decoder)


@pytest.fixture(scope="module")
def filler(tiny_filler: Path) -> Checkpoint:
    return load_checkpoint(tiny_filler)


def check_against(logits_TV: torch.Tensor, targets: list[int], scored: introspect.Score) -> None:
    logprobs = logits_TV.double().log_softmax(-1)
    assert [token.token for token in scored.tokens] == targets
    for row, token in zip(logprobs, scored.tokens, strict=True):
        assert token.logprob == pytest.approx(row[token.token].item(), abs=1e-4)
        assert token.entropy == pytest.approx(-(row.exp() * row).sum().item(), abs=1e-4)
        ordered = row.sort(descending=True).values
        assert ordered[token.rank - 1].item() == pytest.approx(row[token.token].item(), abs=1e-4)
    mean = sum(token.logprob for token in scored.tokens) / len(targets)
    assert scored.perplexity == pytest.approx(math.exp(-mean))


@torch.no_grad()
def test_translation_is_scored_with_its_end(translator: Checkpoint) -> None:
    model, config, tokenizer = translator.model, translator.config, translator.tokenizer
    assert isinstance(model, EncoderDecoder)
    source = [*tokenizer.encode(SOURCE), config.eos_id]
    target = [config.start_id, *tokenizer.encode(TARGET), config.eos_id]
    logits = model(torch.tensor([source]), torch.tensor([target[:-1]]))[0]
    check_against(logits, target[1:], introspect.score(translator, TARGET, SOURCE))


@torch.no_grad()
def test_text_is_scored_after_the_start_token(decoder: Checkpoint) -> None:
    model, config = decoder.model, decoder.config
    assert isinstance(model, DecoderOnly)
    text = " ".join([SOURCE] * 12)  # longer than the rows whose logits are held at once
    ids = [config.start_id, *decoder.tokenizer.encode(text)]
    assert len(ids) > 65
    check_against(model(torch.tensor([ids[:-1]]))[0], ids[1:], introspect.score(decoder, text))


@torch.no_grad()
def test_encoder_is_asked_for_each_token_with_that_one_masked(filler: Checkpoint) -> None:
    model, config = filler.model, filler.config
    assert isinstance(model, EncoderOnly)
    ids = filler.tokenizer.encode(SOURCE)
    rows = []
    for index in range(len(ids)):
        masked = [config.bos_id, *ids, config.eos_id]
        masked[index + 1] = config.mask_id
        rows.append(model(torch.tensor([masked]))[0, index + 1])
    check_against(torch.stack(rows), ids, introspect.score(filler, SOURCE))


def test_nothing_to_score_is_a_sentence(
    translator: Checkpoint, decoder: Checkpoint, filler: Checkpoint
) -> None:
    with pytest.raises(ValueError, match="give the source sentence too"):
        introspect.score(translator, TARGET)
    with pytest.raises(ValueError, match="nothing to score"):
        introspect.score(decoder, "")
    with pytest.raises(ValueError, match="nothing to score"):
        introspect.score(filler, "")
    with pytest.raises(ValueError, match="takes at most 128"):
        introspect.score(decoder, "word " * 5000)
    assert len(introspect.score(translator, "", SOURCE).tokens) == 1  # only the end


def test_attention_maps_of_an_encoder_decoder(translator: Checkpoint) -> None:
    maps = introspect.attention_maps(translator, TARGET, SOURCE)
    n_source = len(translator.tokenizer.encode(SOURCE)) + 1
    n_target = len(translator.tokenizer.encode(TARGET)) + 1
    assert [entry.part for entry in maps] == ["cross", "decoder", "encoder"]
    shapes = [(n_target, n_source), (n_target, n_target), (n_source, n_source)]
    for entry, shape in zip(maps, shapes, strict=True):
        assert len(entry.layers) == 2
        assert (len(entry.query_pieces), len(entry.key_pieces)) == shape
        for layer in entry.layers:
            assert layer.shape == (4, *shape)
            torch.testing.assert_close(layer.sum(-1), torch.ones(4, shape[0]))
    for layer in maps[1].layers:
        assert not layer.triu(1).any(), "a target token looked ahead"
    assert maps[0].query_pieces[0] == "<s>" and maps[0].key_pieces[-1] == "</s>"


@torch.no_grad()
def test_the_maps_are_the_weights_that_attention_uses(decoder: Checkpoint) -> None:
    """The recorded weights of the first layer, applied to its values, give its output."""
    model = decoder.model
    assert isinstance(model, DecoderOnly)
    ids = torch.tensor([[decoder.config.start_id, *decoder.tokenizer.encode(SOURCE)]])
    attention = model.decoder_layers[0].self_attention
    caught: dict[str, torch.Tensor] = {}

    def keep(_module: object, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        caught["values"], caught["output"] = args[2], output

    handle = attention.register_forward_hook(keep)
    model(ids)
    handle.remove()
    weights = introspect.attention_maps(decoder, SOURCE)[0].layers[0]
    values = caught["values"].repeat_interleave(2, dim=1)[0]  # two query heads share one value head
    output = attention.out_proj((weights @ values).transpose(0, 1).flatten(1))
    torch.testing.assert_close(output, caught["output"][0], atol=1e-5, rtol=1e-4)


def test_maps_too_large_to_look_at_are_refused(decoder: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(introspect, "MAX_WEIGHTS", 1000)
    with pytest.raises(ValueError, match="give at most 7"):
        introspect.attention_maps(decoder, SOURCE)


@torch.no_grad()
def test_masks_are_filled_with_the_likeliest_tokens(filler: Checkpoint) -> None:
    model, config, tokenizer = filler.model, filler.config, filler.tokenizer
    assert isinstance(model, EncoderOnly)
    pieces, masks = introspect.fill(filler, "A [MASK] in a <mask>.", n_top=3)
    assert [mask.position for mask in masks] == [i for i, piece in enumerate(pieces) if piece == "<mask>"]
    assert len(masks) == 2
    ids = [config.bos_id, *tokenizer.encode("A"), config.mask_id, *tokenizer.encode("in a"), config.mask_id]
    ids += [*introspect.encode_inside(tokenizer, "."), config.eos_id]
    logits = model(torch.tensor([ids]))[0]
    logits[:, list(tokenizer.specials.values())] = -torch.inf  # a mask stands for a word
    shares = logits.softmax(-1)
    for mask in masks:
        best = shares[mask.position + 1].topk(3)
        assert [candidate.token for candidate in mask.candidates] == best.indices.tolist()
        assert [candidate.raw for candidate in mask.candidates] == pytest.approx(best.values.tolist())


def test_masks_are_drawn_by_the_sampling_chain(filler: Checkpoint) -> None:
    text = "A [MASK] in a [MASK]."
    plain = introspect.fill(filler, text, 3)[1]
    assert all(mask.drawn is None for mask in plain)
    greedy = introspect.fill(filler, text, 3, SamplingSettings(temperature=0.0))[1]
    assert [mask.drawn.token for mask in greedy if mask.drawn] == [m.candidates[0].token for m in plain]
    three = SamplingSettings(top_k=3)
    drawn = [introspect.fill(filler, text, 5, three, seed)[1][0] for seed in range(400)]
    assert drawn[7] == introspect.fill(filler, text, 5, three, 7)[1][0]
    rivals = drawn[0].candidates
    assert [rival.removed_by for rival in rivals] == ["", "", "", "top_k", "top_k"]
    assert sum(rival.final for rival in rivals) == pytest.approx(1.0)
    for rival in rivals:
        share = sum(mask.drawn is not None and mask.drawn.token == rival.token for mask in drawn) / len(drawn)
        assert share == pytest.approx(rival.final, abs=0.1)  # four standard deviations
    with pytest.raises(ValueError, match="top_p"):
        introspect.fill(filler, text, 3, SamplingSettings(top_p=2.0))


def test_a_mask_stands_where_a_word_stood(filler: Checkpoint) -> None:
    """Around a mask the text has the tokens that it has around a word."""
    tokenizer = filler.tokenizer
    whole = tokenizer.encode("A man, in a blue shirt.")
    pieces, _ = introspect.fill(filler, "A [MASK], in a blue shirt.")
    n_after = len(tokenizer.encode(" in a blue shirt."))
    assert list(pieces[-n_after:]) == [tokenizer.piece(token) for token in whole[-n_after:]]
    assert pieces[-n_after - 1] == ","


def test_what_cannot_be_filled_is_a_sentence(filler: Checkpoint, translator: Checkpoint) -> None:
    with pytest.raises(ValueError, match="no mask in the text"):
        introspect.fill(filler, "A man.")
    with pytest.raises(ValueError, match="encoder-only"):
        introspect.fill(translator, "A [MASK].")


def test_a_model_without_a_start_token_leaves_the_first_token_out(decoder: Checkpoint) -> None:
    config: ModelConfig = decoder.config.replace(bos_id=None)
    bare = Checkpoint(decoder.model, config, decoder.tokenizer, decoder.path)
    ids = decoder.tokenizer.encode(SOURCE)
    assert [token.token for token in introspect.score(bare, SOURCE).tokens] == ids[1:]
