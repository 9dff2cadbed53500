"""Masked language modelling (Devlin et al. 2019): hide some tokens, predict them from both sides."""

from __future__ import annotations

import re
from collections.abc import Sequence

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
from tfm.train.data import encode, read_documents, split
from tfm.train.events import Evaluated, Sample
from tfm.train.objectives import Loss
from tfm.train.tasks.scores import Sums, head_loss

MASKED = 0.15  # share of the tokens that are predicted
REPLACED = 0.8  # share of those that show the mask token; of the rest, half show a random one
N_SPECIAL = 4  # ids below are special tokens


class MaskedLM:
    """An encoder-only model on sentences, one a line, of one or several files."""

    def __init__(self, config: TrainConfig, tokenizer: Tokenizer | None = None) -> None:
        data, loop = config.data, config.loop
        self.config, self.notices, self.files = config, [], dict[str, bytes]()
        train = self._read(data.train, data.train_source, data.train_target)
        valid = self._read(data.valid, data.valid_source, data.valid_target)
        if not valid:
            documents, held_out = split([[text] for text in train], data.valid_fraction)
            train, valid = [text for [text] in documents], [text for [text] in held_out]
        if not valid:
            valid = train
            self.notices.append("no validation set is named; scores are on the training set")
        if tokenizer is None:
            tokenizer = Tokenizer.train(train, data.vocab_size, data.min_frequency)
        self.tokenizer = tokenizer
        self.model_config = config.model_config(tokenizer.vocab_size, dict(tokenizer.special_ids))
        self.train, self.valid = self._frame(train), self._frame(valid)
        self.lengths = np.array([len(row) for row in self.train])
        self.prompts = list(loop.samples) or [_hide_a_word(text) for text in valid[: loop.sample_sentences]]

    def _read(self, *paths: str) -> list[str]:
        files = [read_documents(path, self.config.data)[0] for path in paths if path]
        return [text for documents in files for document in documents for text in document]

    def _frame(self, texts: list[str]) -> list[np.ndarray]:
        """<s> tokens </s>, cut to the context."""
        special = self.tokenizer.special_ids
        longest = min(self.config.data.max_tokens, self.model_config.max_positions) - 2
        bos, eos = np.array([special["bos_id"]]), np.array([special["eos_id"]])
        return [np.concatenate((bos, ids[:longest], eos)) for ids in encode(texts, self.tokenizer)]

    def epoch(self, batch_tokens: int, seed: int, epoch: int) -> list[np.ndarray]:
        return token_budget_batches(self.lengths, self.lengths, batch_tokens, seed, epoch)

    def loss(self, model: Model, indices: np.ndarray, device: torch.device, dtype: torch.dtype) -> Loss:
        return masked_loss(model, [self.train[i] for i in indices], None, device, dtype)

    def evaluate(self, checkpoint: Checkpoint, step: int) -> Evaluated:
        """Always the same masks, so that evaluations can be compared."""
        sums, lengths = Sums(), np.array([len(row) for row in self.valid])
        generator = torch.Generator().manual_seed(0)
        with torch.inference_mode():
            for indices in token_budget_batches(lengths, lengths, 4096, 0, 0):
                rows = [self.valid[i] for i in indices]
                sums.add(masked_loss(checkpoint.model, rows, generator, checkpoint.device, torch.float32))
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
    candidates = real_BT & (ids_BT >= N_SPECIAL)
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


def masked_loss(
    model: Model,
    rows: list[np.ndarray],
    generator: torch.Generator | None,
    device: torch.device,
    dtype: torch.dtype,
) -> Loss:
    """Cross-entropy of the hidden tokens."""
    assert isinstance(model, EncoderOnly)
    ids_BT, real_BT = pad(rows, model.config.pad_id)
    shown_BT, predicted_BT = hide_tokens(ids_BT, real_BT, model.config, generator)
    labels_N = ids_BT[predicted_BT].to(device)
    hidden_BTD = model.encode(shown_BT.to(device), real_BT.to(device))
    return head_loss(model, hidden_BTD[predicted_BT.to(device)], labels_N, 0.0, dtype)


def _hide_a_word(text: str) -> str:
    """The text with its middle word masked."""
    words = list(re.finditer(r"\w+", text))
    if not words:
        return text + " [MASK]"
    word = words[len(words) // 2]
    return text[: word.start()] + "[MASK]" + text[word.end() :]
