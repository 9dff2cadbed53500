"""Causal language modelling: plain text, or dialogue with the loss on the replies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from tfm.core.chat import DIALOGUE_TEMPLATE, TEMPLATE_FILE
from tfm.core.checkpoint import Checkpoint
from tfm.core.config import ModelConfig
from tfm.core.kv_cache import KVCache
from tfm.core.model import DecoderOnly, Model
from tfm.core.tokenizer import Tokenizer
from tfm.train.batching import RowBatch, collate_rows, token_budget_batches
from tfm.train.config import DataConfig, TrainConfig
from tfm.train.corpus_files import Meter
from tfm.train.data import iter_blocks
from tfm.train.events import Evaluated, Sample
from tfm.train.objectives import Loss
from tfm.train.preparation import Corpus, Prepared
from tfm.train.rows import MarkedRows, PackedRows, dialogue_rows
from tfm.train.tasks.reading import MAX_SCORED, NO_VALIDATION, Documents, Split, characters, in_blocks
from tfm.train.tasks.scores import Sums, head_loss, training_loss
from tfm.train.token_store import StoreWriter

SAMPLE_TOKENS = 40
PROMPT_TOKENS = 24  # of a long text
BLOCKS = 8  # of a long text, tokenised side by side


class LongText:
    """A file of ``format = "text"``, which is one document; its end is for validation if no file is."""

    def __init__(self, data: DataConfig) -> None:
        self.files = [path for path in (data.train, data.valid) if path]

    def texts(self, meter: Meter) -> Iterator[str]:
        return iter_blocks(self.files[0], meter)

    def columns(self, id_type: str) -> dict[str, str]:
        return {"train": id_type, "valid": id_type}

    def tokenise(
        self, writer: StoreWriter, tokenizer: Tokenizer, config: ModelConfig, meter: Meter
    ) -> Iterator[None]:
        first, last = _ends(config)
        for split, path in zip(("train", "valid"), self.files, strict=False):
            writer.extend(split, [first])
            blocks = iter_blocks(path, meter)
            while some := list(islice(blocks, BLOCKS)):
                writer.extend(split, tokenizer.encode_batch(some))
                yield
            writer.extend(split, [last])


class PackedCorpus(Documents):
    """Documents, each between a start and an end, one after another."""

    def columns(self, id_type: str) -> dict[str, str]:
        return {"train": id_type, "valid": id_type}

    def tokenise(
        self, writer: StoreWriter, tokenizer: Tokenizer, config: ModelConfig, meter: Meter
    ) -> Iterator[None]:
        first, last = _ends(config)
        for split, documents in in_blocks(self.examples(meter, writer.notes), characters):
            ids = tokenizer.encode_batch([text for document in documents for text in document])
            writer.extend(split, [[*first, *row, *last] for row in ids])
            yield
        self.check(writer)


class DialogueCorpus(Documents):
    """Conversations in rows, and which of their tokens are replies."""

    def columns(self, id_type: str) -> dict[str, str]:
        ids = {"train": id_type, "valid": id_type}
        return ids | {f"{split}.predicted": "uint8" for split in ids}

    def tokenise(
        self, writer: StoreWriter, tokenizer: Tokenizer, config: ModelConfig, meter: Meter
    ) -> Iterator[None]:
        bos, eos = config.bos_id, config.eos_id
        if bos is None or eos is None:
            raise ValueError("dialogue needs a tokenizer with a start and an end token")
        length = min(self._data.max_tokens, config.max_positions)
        for split, documents in in_blocks(self.examples(meter, writer.notes), characters):
            ids = iter(tokenizer.encode_batch([text for document in documents for text in document]))
            rows = [
                row
                for document in documents
                for row in dialogue_rows(list(islice(ids, len(document))), length, bos, eos)
            ]
            writer.extend(split, [row.ids.tolist() for row in rows])
            writer.extend(f"{split}.predicted", [row.predicted.tolist() for row in rows])
            yield
        self.check(writer)


class CausalLM:
    """A decoder-only model on documents or conversations."""

    def __init__(self, config: TrainConfig, prepared: Prepared) -> None:
        data, loop, store = config.data, config.loop, prepared.store
        self.config, self.tokenizer, self.model_config = config, prepared.tokenizer, prepared.model_config
        self.dialogue, self.notices = data.format == "dialogue", list[str]()
        if n_dropped := store.notes.get("dropped"):
            self.notices.append(f"{n_dropped:,} documents that match data.drop_pattern are left out")
        self.train, self.valid = self._rows(prepared)
        scored: Split = "valid"
        if not len(self.valid):
            scored, self.valid = "train", self.train.head(MAX_SCORED)
            self.notices.append(NO_VALIDATION)
        self.lengths = self.train.lengths
        self.prompts = list(loop.samples) or self._first_texts(scored, loop.sample_sentences)
        template = {TEMPLATE_FILE: DIALOGUE_TEMPLATE.encode()} if self.dialogue else {}
        self.files = prepared.files | template

    @staticmethod
    def corpus(config: TrainConfig) -> Corpus:
        data = config.data
        if data.format == "text":
            return LongText(data)
        kind = DialogueCorpus if data.format == "dialogue" else PackedCorpus
        return kind(data, [data.train], [data.valid] if data.valid else [])

    def _rows(self, prepared: Prepared) -> tuple[PackedRows | MarkedRows, PackedRows | MarkedRows]:
        """What is trained on, and what is held out."""
        store, data = prepared.store, self.config.data
        if self.dialogue:
            train, valid = (
                MarkedRows(store.rows(s), store.rows(f"{s}.predicted")) for s in ("train", "valid")
            )
            return train, valid
        length = min(data.max_tokens, self.model_config.max_positions)
        stream, held_out = store.rows("train").tokens, store.rows("valid").tokens
        if data.format == "text" and not data.valid and data.valid_fraction:
            cut = int(len(stream) * (1.0 - data.valid_fraction))
            stream, held_out = stream[:cut], stream[cut:]
        return PackedRows(stream, length), PackedRows(held_out, length)

    def _first_texts(self, split: Split, count: int) -> list[str]:
        """The beginnings of the first documents; of one long text, of some places in it."""
        corpus = self.corpus(self.config)
        if isinstance(corpus, Documents):
            return [document[0] for document in islice(corpus.of(split), count)]
        places = range(0, len(self.valid), max(len(self.valid) // max(count, 1), 1))
        return [self.tokenizer.decode(self.valid[i].ids[:PROMPT_TOKENS].tolist()) for i in places[:count]]

    def epoch(self, batch_tokens: int, seed: int, epoch: int) -> list[np.ndarray]:
        return token_budget_batches(self.lengths, self.lengths, batch_tokens, seed, epoch)

    def loss(
        self, model: Model, indices: np.ndarray, r_drop: float, device: torch.device, dtype: torch.dtype
    ) -> Loss:
        rows = [self.train[i] for i in indices]
        batch = collate_rows(rows, self.model_config).to(device)
        return training_loss(
            model,
            lambda: row_states(model, batch),
            batch.labels_N,
            self.config.optim.label_smoothing,
            r_drop,
            dtype,
        )

    def evaluate(self, checkpoint: Checkpoint, step: int) -> Evaluated:
        sums, lengths = Sums(), self.valid.lengths
        smoothing = self.config.optim.label_smoothing
        with torch.inference_mode():
            for indices in token_budget_batches(lengths, lengths, 4096, 0, 0):
                rows = [self.valid[i] for i in indices]
                batch = collate_rows(rows, self.model_config).to(checkpoint.device)
                states_ND = row_states(checkpoint.model, batch)
                sums.add(head_loss(checkpoint.model, states_ND, batch.labels_N, smoothing, torch.float32))
        return sums.evaluated(step)

    def samples(self, checkpoint: Checkpoint, prompts: Sequence[str]) -> tuple[Sample, ...]:
        first, last = _ends(self.model_config)
        longest = self.model_config.max_positions - SAMPLE_TOKENS
        made = []
        for prompt in prompts:
            ids = [*first, *self.tokenizer.encode(prompt), *(last if self.dialogue else ())]
            ids = ids[-longest:] if len(ids) > longest else ids
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


def row_states(model: Model, batch: RowBatch) -> Tensor:
    """Hidden states (N, D) of the tokens after which a row marks the next as predicted."""
    assert isinstance(model, DecoderOnly)
    hidden_BTD = model.decode(batch.ids_BT)
    return hidden_BTD[batch.predicted_BT]


def _ends(config: ModelConfig) -> tuple[list[int], list[int]]:
    """What stands before and after a document."""
    first, last = ([] if token is None else [token] for token in (config.bos_id, config.eos_id))
    return first, last
