"""Causal language modelling: plain text, or dialogue with the loss on the replies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tfm.core.chat import DIALOGUE_TEMPLATE, TEMPLATE_FILE
from tfm.core.checkpoint import Checkpoint
from tfm.core.kv_cache import KVCache
from tfm.core.model import DecoderOnly, Model
from tfm.core.tokenizer import Tokenizer
from tfm.train.batching import collate_rows, token_budget_batches
from tfm.train.config import TrainConfig
from tfm.train.data import Row, dialogue_rows, read_dialogues, read_documents, split, text_rows
from tfm.train.events import Evaluated, Sample
from tfm.train.objectives import Loss
from tfm.train.tasks.scores import Sums, head_loss

SAMPLE_TOKENS = 40


class CausalLM:
    """A decoder-only model on documents or conversations."""

    def __init__(self, config: TrainConfig, tokenizer: Tokenizer | None = None) -> None:
        data, loop = config.data, config.loop
        self.config, self.notices = config, []
        self.dialogue = data.format == "dialogue"
        read = read_dialogues if self.dialogue else read_documents
        train, n_dropped = read(data.train, data)
        if n_dropped:
            self.notices.append(f"{n_dropped:,} documents that match data.drop_pattern are left out")
        if data.valid:
            valid = read(data.valid, data)[0]
        else:
            train, valid = split(train, data.valid_fraction)
        if not valid:
            valid = train
            self.notices.append("no validation set is named; scores are on the training set")
        if tokenizer is None:
            texts = (turn for document in train for turn in document)
            tokenizer = Tokenizer.train(texts, data.vocab_size, data.min_frequency)
        self.tokenizer = tokenizer
        self.model_config = config.model_config(tokenizer.vocab_size, dict(tokenizer.special_ids))
        self.length = min(data.max_tokens, self.model_config.max_positions)
        self.train, self.valid = self._rows(train), self._rows(valid)
        self.lengths = np.array([len(row.ids) for row in self.train])
        self.prompts = list(loop.samples) or [document[0] for document in valid[: loop.sample_sentences]]
        self.files = {TEMPLATE_FILE: DIALOGUE_TEMPLATE.encode()} if self.dialogue else {}

    def _rows(self, documents: list[list[str]]) -> list[Row]:
        special = self.tokenizer.special_ids
        make = dialogue_rows if self.dialogue else text_rows
        return make(documents, self.tokenizer, self.length, special["bos_id"], special["eos_id"])

    def epoch(self, batch_tokens: int, seed: int, epoch: int) -> list[np.ndarray]:
        return token_budget_batches(self.lengths, self.lengths, batch_tokens, seed, epoch)

    def loss(self, model: Model, indices: np.ndarray, device: torch.device, dtype: torch.dtype) -> Loss:
        rows = [self.train[i] for i in indices]
        return rows_loss(model, rows, self.config.optim.label_smoothing, device, dtype)

    def evaluate(self, checkpoint: Checkpoint, step: int) -> Evaluated:
        sums, lengths = Sums(), np.array([len(row.ids) for row in self.valid])
        with torch.inference_mode():
            for indices in token_budget_batches(lengths, lengths, 4096, 0, 0):
                rows = [self.valid[i] for i in indices]
                smoothing = self.config.optim.label_smoothing
                sums.add(rows_loss(checkpoint.model, rows, smoothing, checkpoint.device, torch.float32))
        return sums.evaluated(step)

    def samples(self, checkpoint: Checkpoint, prompts: Sequence[str]) -> tuple[Sample, ...]:
        special = self.tokenizer.special_ids
        made = []
        for prompt in prompts:
            ids = [special["bos_id"], *self.tokenizer.encode(prompt)]
            if self.dialogue:
                ids.append(special["eos_id"])
            ids = ids[-(self.length - SAMPLE_TOKENS) :] if len(ids) > self.length - SAMPLE_TOKENS else ids
            made.append(Sample(source=prompt[:200], reference="", output=self._continue(checkpoint, ids)))
        return tuple(made)

    def _continue(self, checkpoint: Checkpoint, ids: list[int]) -> str:
        """Greedy continuation, so that samples of different steps can be compared."""
        model, config = checkpoint.model, checkpoint.config
        assert isinstance(model, DecoderOnly)
        cache = KVCache.create(config, 1, len(ids) + SAMPLE_TOKENS, checkpoint.dtype, checkpoint.device)
        written: list[int] = []
        new = ids
        with torch.inference_mode():
            while len(written) < SAMPLE_TOKENS:
                hidden = model.decode(torch.tensor([new], device=checkpoint.device), cache=cache)
                cache.advance(len(new))
                token = int(model.project(hidden[:, -1]).argmax())
                if token in config.stop_ids:
                    break
                written.append(token)
                new = [token]
        return self.tokenizer.decode(written)


def rows_loss(
    model: Model, rows: list[Row], smoothing: float, device: torch.device, dtype: torch.dtype
) -> Loss:
    """Cross-entropy of the tokens that a row marks as predicted."""
    assert isinstance(model, DecoderOnly)
    batch = collate_rows(rows, model.config).to(device)
    hidden_BTD = model.decode(batch.ids_BT)
    return head_loss(model, hidden_BTD[batch.predicted_BT], batch.labels_N, smoothing, dtype)
