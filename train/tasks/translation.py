"""Translation: sentence pairs, an encoder-decoder, label-smoothed cross-entropy, BLEU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress, islice

import msgspec
import numpy as np
import torch
from torch import Tensor

from tfm.core.checkpoint import Checkpoint
from tfm.core.config import ModelConfig
from tfm.core.model import EncoderDecoder, Model
from tfm.core.search import translate_batch
from tfm.core.tokenizer import Tokenizer
from tfm.train.batching import PairBatch, collate_pairs, token_budget_batches
from tfm.train.bpe_dropout import BpeDropout, WordNumbers
from tfm.train.config import DataConfig, TrainConfig
from tfm.train.corpus_files import Meter
from tfm.train.data import Pair, iter_pairs
from tfm.train.evaluate import translation_scores
from tfm.train.events import Evaluated, Sample
from tfm.train.objectives import Loss
from tfm.train.preparation import Prepared
from tfm.train.tasks.reading import MAX_SCORED, NO_VALIDATION, Split, divided, in_blocks
from tfm.train.tasks.scores import Sums, head_loss, training_loss
from tfm.train.token_store import StoreWriter

SIDES = ("source", "target")


class PairCorpus:
    """The sentence pairs that a config names."""

    def __init__(self, data: DataConfig) -> None:
        self._data = data
        self._train = (data.train,) if data.train else (data.train_source, data.train_target)
        valid = (data.valid,) if data.valid else (data.valid_source, data.valid_target)
        self._valid = valid if all(valid) else ()

    @property
    def files(self) -> list[str]:
        return [*self._train, *self._valid]

    def examples(self, meter: Meter | None = None) -> Iterator[tuple[Split, Pair]]:
        """Every pair and what it is for."""
        valid = self._pairs(self._valid, meter) if self._valid else None
        return divided(self._pairs(self._train, meter), valid, self._data.valid_fraction)

    def of(self, wanted: Split) -> Iterator[Pair]:
        """The pairs that are for training, or for validation."""
        if wanted == "valid" and self._valid:
            return self._pairs(self._valid)
        return (pair for split, pair in self.examples() if split == wanted)

    def texts(self, meter: Meter) -> Iterator[str]:
        for split, pair in self.examples(meter):
            if split == "train":
                yield from pair

    def columns(self, id_type: str) -> dict[str, str]:
        columns = {f"{split}.{side}": id_type for split in ("train", "valid") for side in SIDES}
        if self._data.bpe_dropout:
            columns |= {"words": id_type, **{f"train.{side}.words": "uint32" for side in SIDES}}
        return columns

    def tokenise(
        self, writer: StoreWriter, tokenizer: Tokenizer, config: ModelConfig, meter: Meter
    ) -> Iterator[None]:
        longest = min(self._data.max_tokens, config.max_positions)
        numbers = WordNumbers()
        for split, pairs in in_blocks(self.examples(meter), lambda pair: len(pair[0]) + len(pair[1])):
            sources = tokenizer.encode_batch([source for source, _ in pairs])
            targets = tokenizer.encode_batch([target for _, target in pairs])
            short = [max(len(s), len(t)) < longest for s, t in zip(sources, targets, strict=True)]
            for side, rows in zip(SIDES, (sources, targets), strict=True):
                writer.extend(f"{split}.{side}", list(compress(rows, short)))
            if split == "train":
                writer.count("long", len(short) - sum(short))
                if self._data.bpe_dropout:
                    for side, texts in zip(SIDES, zip(*compress(pairs, short), strict=True), strict=False):
                        rows = [numbers.of(row) for row in tokenizer.encode_words(texts)]
                        writer.extend(f"train.{side}.words", rows)
            yield
        if self._data.bpe_dropout:
            writer.extend("words", numbers.words)
        for split, files in (("train", self._train), ("valid", self._valid)):
            if files and not writer.n_rows(f"{split}.source"):
                raise ValueError(f"{' and '.join(files)}: no sentence pair of less than {longest} tokens")

    def _pairs(self, files: Sequence[str], meter: Meter | None = None) -> Iterator[Pair]:
        source, target, combined = (*files, "") if len(files) == 2 else ("", "", files[0])
        return iter_pairs(source, target, combined, self._data, meter)


class Translation:
    """Sentence pairs, an encoder-decoder, label-smoothed cross-entropy, BLEU."""

    def __init__(self, config: TrainConfig, prepared: Prepared) -> None:
        loop, store = config.loop, prepared.store
        self.config, self.tokenizer, self.model_config = config, prepared.tokenizer, prepared.model_config
        self.files, self.notices = dict[str, bytes](), list[str]()
        self.sources, self.targets = store.rows("train.source"), store.rows("train.target")
        self.valid_sources, self.valid_targets = store.rows("valid.source"), store.rows("valid.target")
        self.lengths = self.sources.lengths + 1, self.targets.lengths + 1  # with their end tokens
        self._words = [store.rows(f"train.{side}.words") for side in SIDES] if config.data.bpe_dropout else []
        if self._words:
            self._cut_anew = BpeDropout(
                self.tokenizer, store.rows("words"), config.data.bpe_dropout, loop.seed
            )
        if n_long := store.notes.get("long"):
            longest = min(config.data.max_tokens, self.model_config.max_positions)
            self.notices.append(f"{n_long:,} pairs longer than {longest} tokens are left out")
        scored: Split = "valid"
        if not len(self.valid_sources):
            scored = "train"
            self.valid_sources, self.valid_targets = self.sources[:MAX_SCORED], self.targets[:MAX_SCORED]
            self.notices.append(NO_VALIDATION)
        n_texts = max(loop.bleu_sentences, loop.sample_sentences)
        self.valid_texts = list(islice(self._readable(scored), n_texts))
        self.prompts = list(loop.samples) or [
            source for source, _ in self.valid_texts[: loop.sample_sentences]
        ]

    @staticmethod
    def corpus(config: TrainConfig) -> PairCorpus:
        return PairCorpus(config.data)

    def _readable(self, split: Split) -> Iterator[Pair]:
        """Pairs whose source the model can take."""
        for pair in self.corpus(self.config).of(split):
            if len(self.tokenizer.encode(pair[0])) < self.model_config.max_positions:
                yield pair

    def epoch(self, batch_tokens: int, seed: int, epoch: int) -> list[np.ndarray]:
        return token_budget_batches(*self.lengths, batch_tokens, seed, epoch)

    def _rows(self, indices: np.ndarray) -> list[list[np.ndarray]]:
        """Sources and targets of a batch, cut anew where words are."""
        rows = [[side[i] for i in indices] for side in (self.sources, self.targets)]
        if not self._words:
            return rows
        limit = self.model_config.max_positions - 1
        return [
            self._cut_anew.rows((words[i] for i in indices), plain, limit)
            for words, plain in zip(self._words, rows, strict=True)
        ]

    def loss(
        self, model: Model, indices: np.ndarray, r_drop: float, device: torch.device, dtype: torch.dtype
    ) -> Loss:
        sources, targets = self._rows(indices)
        batch = collate_pairs(sources, targets, self.model_config).to(device)
        return training_loss(
            model,
            lambda: pair_states(model, batch),
            batch.labels_N,
            self.config.optim.label_smoothing,
            r_drop,
            dtype,
        )

    def evaluate(self, checkpoint: Checkpoint, step: int) -> Evaluated:
        sums, smoothing = Sums(), self.config.optim.label_smoothing
        lengths = self.valid_sources.lengths + 1, self.valid_targets.lengths + 1
        with torch.inference_mode():
            for indices in token_budget_batches(*lengths, 4096, 0, 0):
                rows = [self.valid_sources[i] for i in indices], [self.valid_targets[i] for i in indices]
                batch = collate_pairs(*rows, self.model_config).to(checkpoint.device)
                states_ND = pair_states(checkpoint.model, batch)
                sums.add(head_loss(checkpoint.model, states_ND, batch.labels_N, smoothing, torch.float32))
        scored = self.valid_texts[: self.config.loop.bleu_sentences]
        if not scored:
            return sums.evaluated(step)
        outputs = translate_batch(checkpoint, [source for source, _ in scored], beam=1)
        language = self.config.data.target_language or "en"
        scores = translation_scores(outputs, [target for _, target in scored], language)
        return msgspec.structs.replace(
            sums.evaluated(step), bleu=scores.bleu, chrf=scores.chrf, cer=scores.cer, wer=scores.wer
        )

    def samples(self, checkpoint: Checkpoint, prompts: Sequence[str]) -> tuple[Sample, ...]:
        references = dict(self.valid_texts)
        outputs = translate_batch(checkpoint, prompts, beam=1)
        return tuple(
            Sample(source=source, reference=references.get(source, ""), output=output)
            for source, output in zip(prompts, outputs, strict=True)
        )


def pair_states(model: Model, batch: PairBatch) -> Tensor:
    """Hidden states (N, D) of the real target tokens; padding is never projected."""
    assert isinstance(model, EncoderDecoder)
    memory = model.encode(batch.source_BS, batch.source_mask_BS)
    hidden_BTD = model.decode(batch.target_in_BT, memory, batch.source_mask_BS)
    return hidden_BTD[batch.target_mask_BT]
