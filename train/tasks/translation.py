"""Translation: sentence pairs, an encoder-decoder, label-smoothed cross-entropy, BLEU."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import torch

from tfm.core.checkpoint import Checkpoint
from tfm.core.model import EncoderDecoder, Model
from tfm.core.search import translate_batch
from tfm.core.tokenizer import Tokenizer
from tfm.train.batching import PairBatch, collate_pairs, token_budget_batches
from tfm.train.config import TrainConfig
from tfm.train.data import read_pairs, tokenise
from tfm.train.evaluate import translation_scores
from tfm.train.events import Evaluated, Sample
from tfm.train.objectives import Loss
from tfm.train.tasks.scores import Sums, head_loss


class Translation:
    """Sentence pairs, an encoder-decoder, label-smoothed cross-entropy, BLEU."""

    def __init__(self, config: TrainConfig, tokenizer: Tokenizer | None = None) -> None:
        data, loop = config.data, config.loop
        train = read_pairs(data.train_source, data.train_target, data.train, data)
        held_out = None
        if data.valid_fraction and not (data.valid_source or data.valid):
            train, held_out = train.split(data.valid_fraction)
        if tokenizer is None:
            texts = (*train.sources, *train.targets)
            tokenizer = Tokenizer.train(texts, data.vocab_size, data.min_frequency)
        self.config, self.tokenizer, self.files = config, tokenizer, dict[str, bytes]()
        self.model_config = config.model_config(tokenizer.vocab_size, dict(tokenizer.special_ids))
        longest = min(data.max_tokens, self.model_config.max_positions)
        self.train, n_long = tokenise(train, tokenizer, longest)
        self.notices = [f"{n_long:,} pairs longer than {longest} tokens are left out"] if n_long else []
        if data.valid_source or data.valid:
            self.valid_texts = read_pairs(data.valid_source, data.valid_target, data.valid, data)
        elif held_out:
            self.valid_texts = held_out
        else:
            self.valid_texts = train
            self.notices.append("no validation set is named; scores are on the training set")
        self.valid, _ = tokenise(self.valid_texts, tokenizer, longest)
        self.prompts = list(loop.samples) or self.valid_texts.sources[: loop.sample_sentences]

    def epoch(self, batch_tokens: int, seed: int, epoch: int) -> list[np.ndarray]:
        lengths = self.train.source_lengths, self.train.target_lengths
        return token_budget_batches(*lengths, batch_tokens, seed, epoch)

    def loss(self, model: Model, indices: np.ndarray, device: torch.device, dtype: torch.dtype) -> Loss:
        rows = [self.train.sources[i] for i in indices], [self.train.targets[i] for i in indices]
        batch = collate_pairs(*rows, self.model_config).to(device)
        return pair_loss(model, batch, self.config.optim.label_smoothing, dtype)

    def evaluate(self, checkpoint: Checkpoint, step: int) -> Evaluated:
        sums, valid = Sums(), self.valid
        with torch.inference_mode():
            for indices in token_budget_batches(valid.source_lengths, valid.target_lengths, 4096, 0, 0):
                rows = [valid.sources[i] for i in indices], [valid.targets[i] for i in indices]
                batch = collate_pairs(*rows, self.model_config).to(checkpoint.device)
                smoothing = self.config.optim.label_smoothing
                sums.add(pair_loss(checkpoint.model, batch, smoothing, torch.float32))
        n_scored = self.config.loop.bleu_sentences
        if not n_scored:
            return sums.evaluated(step)
        texts, language = self.valid_texts, self.config.data.target_language or "en"
        outputs = translate_batch(checkpoint, texts.sources[:n_scored], beam=1)
        scores = translation_scores(outputs, texts.targets[:n_scored], language)
        return msgspec.structs.replace(
            sums.evaluated(step), bleu=scores.bleu, chrf=scores.chrf, cer=scores.cer, wer=scores.wer
        )

    def samples(self, checkpoint: Checkpoint, prompts: Sequence[str]) -> tuple[Sample, ...]:
        references = dict(zip(self.valid_texts.sources, self.valid_texts.targets, strict=True))
        outputs = translate_batch(checkpoint, prompts, beam=1)
        return tuple(
            Sample(source=source, reference=references.get(source, ""), output=output)
            for source, output in zip(prompts, outputs, strict=True)
        )


def pair_loss(model: Model, batch: PairBatch, smoothing: float, dtype: torch.dtype) -> Loss:
    """Label-smoothed cross-entropy of the real target tokens; padding is never projected."""
    assert isinstance(model, EncoderDecoder)
    memory = model.encode(batch.source_BS, batch.source_mask_BS)
    hidden_BTD = model.decode(batch.target_in_BT, memory, batch.source_mask_BS)
    return head_loss(model, hidden_BTD[batch.target_mask_BT], batch.labels_N, smoothing, dtype)
