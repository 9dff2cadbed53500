"""Looking inside: how likely a given text is, what attends to what, what a mask may stand for.

Letters: B rows, T tokens, S source tokens, H heads, V vocabulary. Everything here runs the plain
full forward without a cache: it is meant for one text that a person looks at.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tfm.core.attention import MultiHeadAttention
from tfm.core.checkpoint import Checkpoint
from tfm.core.config import ModelConfig
from tfm.core.engine.protocol import Candidate, MaskFill, ScoredToken
from tfm.core.model import DecoderOnly, EncoderDecoder, EncoderOnly
from tfm.core.sampling.chain import LaneState, sample
from tfm.core.sampling.settings import NEUTRAL, SamplingSettings
from tfm.core.tokenizer import Tokenizer

MASK_MARKS = re.compile(r"\[MASK\]|<mask>")
MAX_WEIGHTS = 4_000_000  # attention weights of one answer; more than that nobody can look at
_ROWS = 64  # rows or positions whose logits are held at once


@dataclass(frozen=True)
class Score:
    """What the model thinks of a text, token by token; logarithms are natural."""

    tokens: tuple[ScoredToken, ...]

    @property
    def logprob(self) -> float:
        return math.fsum(token.logprob for token in self.tokens)

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-probability a token."""
        return math.exp(min(-self.logprob / max(len(self.tokens), 1), 700.0))


@dataclass(frozen=True)
class AttentionMaps:
    """The weights of one stack of attentions: ``layers`` holds one (H, T, S) tensor each."""

    part: Literal["encoder", "decoder", "cross"]
    query_pieces: tuple[str, ...]
    key_pieces: tuple[str, ...]
    layers: tuple[Tensor, ...]


@torch.inference_mode()
def score(checkpoint: Checkpoint, text: str, source: str = "") -> Score:
    """Log-probability, entropy and rank (1: the model's first choice) of each token of a text.

    An encoder-decoder scores the text, its end included, as a translation of ``source``. A
    decoder-only model scores each token after those before it; where it has no start token, the
    first one cannot be scored and is left out. An encoder-only model is asked for each token in
    turn with that one masked (pseudo-log-likelihood, Salazar et al. 2020).

    Raises:
        ValueError: nothing to score, no source for a translation, or a text that is too long.
    """
    model, config, tokenizer = checkpoint.model, checkpoint.config, checkpoint.tokenizer
    ids = checkpoint.target_tokenizer.encode(text)
    if isinstance(model, EncoderDecoder):
        memory = model.encode(_row(_source_ids(checkpoint, source), model))
        start = _start(config)
        ids = [*start, *ids, *_end(config)]
        _check_length(config, len(ids), "the text")
        rows, targets = model.decode(_row(ids, model), memory)[0, len(start) - 1 : -1], ids[len(start) :]
    elif isinstance(model, DecoderOnly):
        ids = [*_start(config), *ids]
        if len(ids) < 2:
            raise ValueError("there is nothing to score: give a text of at least two tokens")
        _check_length(config, len(ids), "the text")
        rows, targets = model.decode(_row(ids, model))[0, :-1], ids[1:]
    else:
        if not ids:
            raise ValueError("there is nothing to score: the text is empty")
        rows, targets = _masked_in_turn(model, config, ids), ids
    measured = _measure(model, rows, targets)
    return Score(
        tuple(
            ScoredToken(
                token=token, piece=tokenizer.piece(token), logprob=logprob, entropy=entropy, rank=rank
            )
            for token, (logprob, entropy, rank) in zip(targets, measured, strict=True)
        )
    )


@torch.inference_mode()
def attention_maps(checkpoint: Checkpoint, text: str, source: str = "") -> list[AttentionMaps]:
    """Every head's weights, computed beside the forward pass, which itself never stores them.

    An encoder-decoder gives cross, decoder and encoder maps, in this order; the others one.

    Raises:
        ValueError: an empty or missing text, or one too long to look at.
    """
    model, config, tokenizer = checkpoint.model, checkpoint.config, checkpoint.tokenizer
    ids = checkpoint.target_tokenizer.encode(text)
    if isinstance(model, EncoderDecoder):
        source_ids = _source_ids(checkpoint, source)
        ids = [*_start(config), *ids]
        _check_size(config, len(ids), len(source_ids))
        with _recording(model) as seen:
            model.decode(_row(ids, model), model.encode(_row(source_ids, model)))
        above, below = _pieces(tokenizer, ids), _pieces(tokenizer, source_ids)
        return [
            AttentionMaps("cross", above, below, _weights(seen, model.decoder_layers, "cross_attention")),
            AttentionMaps("decoder", above, above, _weights(seen, model.decoder_layers, "self_attention")),
            AttentionMaps("encoder", below, below, _weights(seen, model.encoder_layers, "self_attention")),
        ]
    ids = [*_start(config), *ids, *(_end(config) if isinstance(model, EncoderOnly) else [])]
    if not ids:
        raise ValueError("there is nothing to look at: the text is empty")
    _check_size(config, len(ids), len(ids))
    with _recording(model) as seen:
        if isinstance(model, DecoderOnly):
            model.decode(_row(ids, model))
        else:
            model.encode(_row(ids, model))
    pieces = _pieces(tokenizer, ids)
    part: Literal["encoder", "decoder"] = "decoder" if isinstance(model, DecoderOnly) else "encoder"
    layers = model.decoder_layers if isinstance(model, DecoderOnly) else model.encoder_layers
    return [AttentionMaps(part, pieces, pieces, _weights(seen, layers, "self_attention"))]


@torch.inference_mode()
def fill(
    checkpoint: Checkpoint,
    text: str,
    n_top: int = 5,
    settings: SamplingSettings | None = None,
    seed: int = 0,
) -> tuple[tuple[str, ...], tuple[MaskFill, ...]]:
    """The pieces of the text and, for each ``[MASK]`` or ``<mask>`` in it, the likeliest tokens.

    With settings, each mask also gets a token drawn by the sampling chain, every mask by itself: what
    one draws, the others do not know. The penalties see the tokens of the text. A mask stands for a word,
    so special tokens have no part in this.

    Raises:
        ValueError: a model that fills no masks, a text without one, settings out of range.
    """
    model, config, tokenizer = checkpoint.model, checkpoint.config, checkpoint.tokenizer
    if not isinstance(model, EncoderOnly) or config.mask_id is None:
        raise ValueError(f"{checkpoint.path.name} fills no masks: that takes an encoder-only model")
    first, *others = MASK_MARKS.split(text)
    if not others:
        raise ValueError("there is no mask in the text: write [MASK] where a word is missing")
    ids = tokenizer.encode(first.rstrip())
    for part in others:
        ids.append(config.mask_id)
        ids += encode_inside(tokenizer, part.rstrip() if part is not others[-1] else part)
    framed = [*_start(config), *ids, *_end(config)]
    _check_length(config, len(framed), "the text")
    offset = len(_start(config))
    positions = [index for index, token in enumerate(ids) if token == config.mask_id]
    hidden = model.encode(_row(framed, model))[0, [offset + index for index in positions]]
    if settings is not None:
        settings.check()
    logits = model.project(hidden).float()
    logits[:, [token for token in tokenizer.specials.values() if token < config.vocab_size]] = -math.inf
    seen = [token for token in ids if token != config.mask_id]
    lanes = [LaneState(settings or NEUTRAL, seed, position, seen) for position in positions]
    draws = sample(logits, lanes, n_top=min(max(n_top, 1), config.vocab_size))
    masks = tuple(
        MaskFill(
            position=position,
            candidates=tuple(
                _candidate(tokenizer, rival.token, rival.raw, rival.final, rival.removed_by)
                for rival in draw.top
            ),
            entropy=draw.entropy,
            drawn=None
            if settings is None
            else _candidate(tokenizer, draw.token, math.exp(draw.logprob), draw.probability),
        )
        for position, draw in zip(positions, draws, strict=True)
    )
    return _pieces(tokenizer, ids), masks


def _candidate(tokenizer: Tokenizer, token: int, raw: float, final: float, removed_by: str = "") -> Candidate:
    return Candidate(token=token, piece=tokenizer.piece(token), raw=raw, final=final, removed_by=removed_by)


def encode_inside(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a text that follows something, so that its first word gets no space of its own.

    It is encoded behind a neighbour that cannot merge with it, and the neighbour is taken off.
    """
    if not text or text[0].isspace():
        return tokenizer.encode(text)
    neighbour = "." if text[0].isalnum() else "a"
    before, ids = tokenizer.encode_batch([neighbour, neighbour + text])
    return ids[len(before) :] if ids[: len(before)] == before else tokenizer.encode(text)


# --------------------------------------------------------------------------- parts
def _start(config: ModelConfig) -> list[int]:
    return [*([] if config.start_id is None else [config.start_id]), *config.target_prefix]


def _end(config: ModelConfig) -> list[int]:
    return [] if config.eos_id is None else [config.eos_id]


def _row(ids: Sequence[int], model: nn.Module) -> Tensor:
    return torch.tensor([list(ids)], device=next(model.parameters()).device)


def _pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> tuple[str, ...]:
    return tuple(tokenizer.piece(index) for index in ids)


def _source_ids(checkpoint: Checkpoint, source: str) -> list[int]:
    if not source:
        raise ValueError(f"{checkpoint.path.name} translates: give the source sentence too")
    config = checkpoint.config
    ids = [*config.source_prefix, *checkpoint.tokenizer.encode(source), *_end(config)]
    _check_length(config, len(ids), "the source")
    return ids


def _check_length(config: ModelConfig, n_tokens: int, what: str) -> None:
    if n_tokens > config.max_positions:
        raise ValueError(f"{what} has {n_tokens:,} tokens; this model takes at most {config.max_positions:,}")


def _check_size(config: ModelConfig, n_queries: int, n_keys: int) -> None:
    longest = max(n_queries, n_keys)
    _check_length(config, longest, "the longer text")
    n_weights = config.n_heads * longest * longest * (config.n_encoder_layers + 2 * config.n_decoder_layers)
    if n_weights > MAX_WEIGHTS:
        limit = int(longest * math.sqrt(MAX_WEIGHTS / n_weights))
        raise ValueError(
            f"{longest:,} tokens make an attention map too large to look at: give at most {limit:,}"
        )


def _masked_in_turn(model: EncoderOnly, config: ModelConfig, ids: list[int]) -> Tensor:
    """(T, D): the hidden state of each token while that one is masked."""
    if config.mask_id is None:
        raise ValueError("this encoder has no mask token, so it cannot score a text")
    framed = [*_start(config), *ids, *_end(config)]
    _check_length(config, len(framed), "the text")
    offset = len(_start(config))
    hidden = []
    for begin in range(0, len(ids), _ROWS):
        picked = torch.arange(begin, min(begin + _ROWS, len(ids)))
        batch = torch.tensor(framed).repeat(len(picked), 1)
        rows = torch.arange(len(picked))
        batch[rows, picked + offset] = config.mask_id
        out = model.encode(batch.to(next(model.parameters()).device))
        hidden.append(out[rows.to(out.device), (picked + offset).to(out.device)])
    return torch.cat(hidden)


def _measure(
    model: EncoderDecoder | DecoderOnly | EncoderOnly, rows_TD: Tensor, targets: Sequence[int]
) -> list[tuple[float, float, int]]:
    """Log-probability, entropy and rank of each target; logits of a few rows at a time."""
    measured: list[tuple[float, float, int]] = []
    for begin in range(0, len(targets), _ROWS):
        logprobs_TV = model.project(rows_TD[begin : begin + _ROWS]).float().log_softmax(-1)
        wanted = torch.tensor(targets[begin : begin + _ROWS], device=logprobs_TV.device)[:, None]
        chosen = logprobs_TV.gather(1, wanted)
        entropy = torch.special.entr(logprobs_TV.exp()).sum(-1)
        rank = (logprobs_TV > chosen).sum(-1) + 1
        measured += zip(chosen[:, 0].tolist(), entropy.tolist(), rank.tolist(), strict=True)
    return measured


def _weights(seen: dict[nn.Module, Tensor], layers: nn.ModuleList, name: str) -> tuple[Tensor, ...]:
    return tuple(seen[layer.get_submodule(name)] for layer in layers)


@contextmanager
def _recording(model: nn.Module) -> Iterator[dict[nn.Module, Tensor]]:
    """While it lasts, each attention that is called leaves its weights (H, T, S) in the dict."""
    seen: dict[nn.Module, Tensor] = {}

    def look(module: nn.Module, args: tuple[Tensor | bool | None, ...]) -> None:
        assert isinstance(module, MultiHeadAttention)
        query, key, _value, *rest = args
        seen[module] = module.weights(query, key, *rest)[0].cpu()  # type: ignore[arg-type]

    attentions = [module for module in model.modules() if isinstance(module, MultiHeadAttention)]
    handles = [module.register_forward_pre_hook(look) for module in attentions]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
