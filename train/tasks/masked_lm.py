"""Masked language modelling (Devlin et al. 2019): hide some tokens, predict them from both sides."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from tfm.core.checkpoint import Checkpoint
from tfm.core.config import ModelConfig
from tfm.core.introspect import fill
from tfm.core.model import EncoderOnly, Model
from tfm.core.tokenizer import Tokenizer
from tfm.train.batching import pad, token_budget_batches
from tfm.train.config import TrainConfig
from tfm.train.corpus_files import Meter
from tfm.train.events import Evaluated, Sample
from tfm.train.objectives import Loss
from tfm.train.preparation import Prepared
from tfm.train.tasks.reading import MAX_SCORED, NO_VALIDATION, Documents, Split, characters, in_blocks
from tfm.train.tasks.scores import Sums, head_loss, training_loss
from tfm.train.token_store import StoreWriter

MASKED = 0.15  # share of the tokens that are predicted
REPLACED = 0.8  # share of those that show the mask token; of the rest, half show a random one
N_SPECIAL = 4  # ids below are special tokens


class SentenceCorpus(Documents):
    """Texts, each ``<s> tokens </s>`` and cut to the context."""

    def columns(self, id_type: str) -> dict[str, str]:
        return {"train": id_type, "valid": id_type}

    def tokenise(
        self, writer: StoreWriter, tokenizer: Tokenizer, config: ModelConfig, meter: Meter
    ) -> Iterator[None]:
        bos, eos = config.bos_id, config.eos_id
        if bos is None or eos is None or config.mask_id is None:
            raise ValueError("masked-lm needs a tokenizer with start, end and mask tokens")
        longest = min(self._data.max_tokens, config.max_positions) - 2
        for split, documents in in_blocks(self.examples(meter, writer.notes), characters):
            ids = tokenizer.encode_batch([text for document in documents for text in document])
            writer.extend(split, [[bos, *row[:longest], eos] for row in ids])
            yield
        self.check(writer)


class MaskedLM:
    """An encoder-only model on sentences, one a line, of one or several files."""

    def __init__(self, config: TrainConfig, prepared: Prepared) -> None:
        loop, store = config.loop, prepared.store
        self.config, self.tokenizer, self.model_config = config, prepared.tokenizer, prepared.model_config
        self.files, self.notices = dict[str, bytes](), list[str]()
        if n_dropped := store.notes.get("dropped"):
            self.notices.append(f"{n_dropped:,} texts that match data.drop_pattern are left out")
        self.train, self.valid = store.rows("train"), store.rows("valid")
        scored: Split = "valid"
        if not len(self.valid):
            scored, self.valid = "train", self.train[:MAX_SCORED]
            self.notices.append(NO_VALIDATION)
        self.lengths = self.train.lengths
        documents = islice(self.corpus(config).of(scored), loop.sample_sentences)
        self.prompts = list(loop.samples) or [_hide_a_word(text) for [text] in documents]

    @staticmethod
    def corpus(config: TrainConfig) -> SentenceCorpus:
        data = config.data
        train = [path for path in (data.train, data.train_source, data.train_target) if path]
        valid = [path for path in (data.valid, data.valid_source, data.valid_target) if path]
        return SentenceCorpus(data, train, valid)

    def epoch(self, batch_tokens: int, seed: int, epoch: int) -> list[np.ndarray]:
        return token_budget_batches(self.lengths, self.lengths, batch_tokens, seed, epoch)

    def loss(
        self, model: Model, indices: np.ndarray, r_drop: float, device: torch.device, dtype: torch.dtype
    ) -> Loss:
        batch = collate_masked([self.train[i] for i in indices], self.model_config, None, device)
        return training_loss(model, lambda: masked_states(model, batch), batch.labels_N, 0.0, r_drop, dtype)

    def evaluate(self, checkpoint: Checkpoint, step: int) -> Evaluated:
        """Always the same masks, so that evaluations can be compared."""
        sums, lengths = Sums(), self.valid.lengths
        generator = torch.Generator().manual_seed(0)
        with torch.inference_mode():
            for indices in token_budget_batches(lengths, lengths, 4096, 0, 0):
                rows = [self.valid[i] for i in indices]
                batch = collate_masked(rows, self.model_config, generator, checkpoint.device)
                states_ND = masked_states(checkpoint.model, batch)
                sums.add(head_loss(checkpoint.model, states_ND, batch.labels_N, 0.0, torch.float32))
        return sums.evaluated(step)

    def samples(self, checkpoint: Checkpoint, prompts: Sequence[str]) -> tuple[Sample, ...]:
        made = []
        for prompt in prompts:
            with torch.inference_mode():
                _, masks = fill(checkpoint, prompt, n_top=3)
            best = [" / ".join(candidate.piece.strip() for candidate in mask.candidates) for mask in masks]
            made.append(Sample(source=prompt, reference="", output="; ".join(best)))
        return tuple(made)


def hide_tokens(
    ids_BT: Tensor, real_BT: Tensor, config: ModelConfig, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """What the model is shown and which tokens it must predict: (B, T) ids, (B, T) bool.

    15 % of the tokens are predicted (at least one of the batch); of them 80 % are shown as the mask,
    10 % as a random token, 10 % as they are. Special tokens are never hidden.
    """
    special = [config.pad_id, config.bos_id, config.eos_id, config.mask_id, config.unk_id]
    is_special = torch.isin(ids_BT, torch.tensor([token for token in special if token is not None]))
    candidates = real_BT & ~is_special
    draws = torch.rand(ids_BT.shape, generator=generator)
    predicted = candidates & (draws < MASKED)
    if not bool(predicted.any()):
        predicted = candidates & (draws == draws[candidates].min())
    how = torch.rand(ids_BT.shape, generator=generator)
    random_ids = torch.randint(N_SPECIAL, config.vocab_size, ids_BT.shape, generator=generator)
    assert config.mask_id is not None
    shown = torch.where(predicted & (how < REPLACED), torch.tensor(config.mask_id), ids_BT)
    shown = torch.where(predicted & (how >= (1.0 + REPLACED) / 2), random_ids, shown)
    return shown, predicted


@dataclass(frozen=True)
class MaskedBatch:
    """Texts with tokens hidden, right-padded. Letters: B texts, T tokens, N hidden tokens."""

    shown_BT: Tensor
    real_BT: Tensor  # True where not padding
    predicted_BT: Tensor  # True where hidden
    labels_N: Tensor  # the hidden tokens, text by text


def collate_masked(
    rows: list[np.ndarray], config: ModelConfig, generator: torch.Generator | None, device: torch.device
) -> MaskedBatch:
    """Pad, and hide tokens by ``generator`` (None: torch's own)."""
    ids_BT, real_BT = pad(rows, config.pad_id)
    shown_BT, predicted_BT = hide_tokens(ids_BT, real_BT, config, generator)
    parts = shown_BT, real_BT, predicted_BT, ids_BT[predicted_BT]
    return MaskedBatch(*(part.to(device) for part in parts))


def masked_states(model: Model, batch: MaskedBatch) -> Tensor:
    """Hidden states (N, D) of the hidden tokens."""
    assert isinstance(model, EncoderOnly)
    return model.encode(batch.shown_BT, batch.real_BT)[batch.predicted_BT]


def _hide_a_word(text: str) -> str:
    """The text with its middle word masked."""
    words = list(re.finditer(r"\w+", text))
    if not words:
        return text + " [MASK]"
    word = words[len(words) // 2]
    return text[: word.start()] + "[MASK]" + text[word.end() :]
