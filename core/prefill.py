"""Prompts and the first pass over them: what generation and search begin with alike.

Letters: B lanes, U different prompts, S source tokens, T prompt tokens, D d_model, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tfm.core.checkpoint import Checkpoint
from tfm.core.kv_cache import KVCache
from tfm.core.model import DecoderOnly, EncoderDecoder, EncoderOnly

Writer = EncoderDecoder | DecoderOnly
"""A model that writes."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a lane starts from.

    ``source`` is what the encoder reads (empty for a decoder-only model), ``ids`` is what the decoder is
    fed before the first token is drawn, its start token included.
    """

    source: tuple[int, ...]
    ids: tuple[int, ...]


class PrefixCache(Protocol):
    """Keeps one-lane caches of sequences decoded before (see tfm.core.engine.sessions)."""

    def lookup(self, source: Sequence[int], ids: Sequence[int]) -> tuple[KVCache, int] | None:
        """A cache that shares a beginning of this many ids; it must be copied before it is written to."""

    def store(self, source: Sequence[int], ids: Sequence[int], cache: KVCache) -> None:
        """Keep a one-lane cache that holds exactly these ids."""


def writer(checkpoint: Checkpoint) -> Writer:
    """The checkpoint's model. Raises ValueError where it cannot write text."""
    if isinstance(checkpoint.model, EncoderOnly):
        raise ValueError("an encoder-only model does not write text; use it to fill masks")
    return checkpoint.model


def encode_prompts(
    checkpoint: Checkpoint, texts: Sequence[str], names: Sequence[str], prefixes: Sequence[Sequence[int]]
) -> list[Prompt]:
    """Token ids of source sentences or of texts to continue, each followed by a forced prefix.

    Raises:
        ValueError: naming the text (``names``) that is empty or longer than the model's context, or
            the prefix that holds no token ids.
    """
    config = checkpoint.config
    translates = config.family == "encoder-decoder"
    start = (*(() if config.start_id is None else (config.start_id,)), *config.target_prefix)
    end = () if config.eos_id is None else (config.eos_id,)
    prompts = []
    for text, name, prefix, ids in zip(
        texts, names, prefixes, checkpoint.tokenizer.encode_batch(texts), strict=True
    ):
        if translates and not text.strip():
            raise ValueError(f"{name} is empty: there is nothing to translate")
        source, begun = ((*config.source_prefix, *ids, *end), start) if translates else ((), (*start, *ids))
        prompts.append(begin(checkpoint, name, source, begun, prefix))
    return prompts


def begin(
    checkpoint: Checkpoint, name: str, source: tuple[int, ...], begun: tuple[int, ...], prefix: Sequence[int]
) -> Prompt:
    """A prompt of ids, followed by a forced prefix. Raises ValueError as :func:`encode_prompts` does."""
    config = checkpoint.config
    if any(not 0 <= token < config.vocab_size for token in prefix):
        raise ValueError(f"{name}: its prefix holds a token id outside of 0..{config.vocab_size - 1}")
    fed = (*begun, *prefix)
    if not fed:
        raise ValueError(f"{name} is empty, and this model has no start token to begin with")
    for n_tokens in (len(source), len(fed)):
        if n_tokens > config.max_positions:
            raise ValueError(
                f"{name} has {n_tokens:,} tokens, but this model takes at most "
                f"{config.max_positions:,}; shorten it or split it"
            )
    return Prompt(source, fed)


def pad(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Right-padded ids (B, T) and the mask that is True where a token is real."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return ids, torch.arange(width, device=device) < lengths[:, None]


@torch.inference_mode()
def prefill(
    checkpoint: Checkpoint, prompts: Sequence[Prompt], room: int, known: PrefixCache | None = None
) -> tuple[KVCache, Tensor]:
    """Run the prompts through the model: a cache of B lanes and the logits (B, V) of what comes next.

    Equal prompts run once and equal sources are encoded once. ``room`` is how many tokens each lane
    will be continued by. ``known`` is asked where all lanes share one prompt.
    """
    unique = list(dict.fromkeys(prompts))
    found = known.lookup(unique[0].source, unique[0].ids) if known is not None and len(unique) == 1 else None
    if found is not None:
        retained, shared = found
        cache = retained.select([0])
        cache.crop([min(shared, len(unique[0].ids) - 1)])  # the last token's logits are needed anew
    else:
        longest = max(len(prompt.ids) for prompt in unique)
        cache = KVCache.create(
            checkpoint.config, len(unique), longest + room, checkpoint.dtype, checkpoint.device
        )
        _read_sources(checkpoint, cache, [prompt.source for prompt in unique])
    fed = [prompt.ids[length:] for prompt, length in zip(unique, cache.lengths, strict=True)]
    ids_UT, _ = pad(fed, checkpoint.config.pad_id, checkpoint.device)
    hidden_UTD = writer(checkpoint).decode(ids_UT, cache=cache)
    counts = [len(row) for row in fed]
    cache.advance(counts)
    last = torch.tensor(counts, device=hidden_UTD.device) - 1
    rows = torch.arange(len(unique), device=hidden_UTD.device)
    logits_UV = _logits(checkpoint, hidden_UTD[rows, last])
    if len(unique) == len(prompts):
        return cache, logits_UV
    lanes = [unique.index(prompt) for prompt in prompts]
    return cache.select(lanes), logits_UV[lanes]


def _read_sources(checkpoint: Checkpoint, cache: KVCache, sources: Sequence[tuple[int, ...]]) -> None:
    model = checkpoint.model
    if not isinstance(model, EncoderDecoder):
        return
    unique = list(dict.fromkeys(sources))
    ids_US, mask_US = pad(unique, checkpoint.config.pad_id, checkpoint.device)
    memory_USD = model.encode(ids_US, mask_US)
    if len(unique) < len(sources):
        rows = [unique.index(source) for source in sources]
        memory_USD, mask_US = memory_USD[rows], mask_US[rows]
    model.prepare(cache, memory_USD, mask_US)


@torch.inference_mode()
def advance(checkpoint: Checkpoint, cache: KVCache, tokens: Tensor) -> Tensor:
    """Feed one token to each lane, (B,) ids -> logits (B, V) of the next."""
    hidden_B1D = writer(checkpoint).decode(tokens[:, None], cache=cache)
    cache.advance(1)
    return _logits(checkpoint, hidden_B1D[:, 0])


def _logits(checkpoint: Checkpoint, hidden_BD: Tensor) -> Tensor:
    """(B, D) -> (B, V); tokens that the model is never to write are ruled out."""
    logits_BV = writer(checkpoint).project(hidden_BD)
    if checkpoint.config.banned_ids:
        logits_BV[:, checkpoint.config.banned_ids] = float("-inf")
    return logits_BV
