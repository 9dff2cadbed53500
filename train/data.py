"""Corpora: text files to token ids. What each example is; not how examples are batched.

A document is a list of texts: the turns of a conversation, or one text alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import msgspec
import numpy as np

from tfm.core.tokenizer import Tokenizer
from tfm.train.config import DataConfig
from tfm.train.corpus_files import iter_lines, read_parallel

T = TypeVar("T")


@dataclass(frozen=True)
class Pairs:
    """Sentence pairs as text."""

    sources: list[str]
    targets: list[str]

    def __len__(self) -> int:
        return len(self.sources)

    def split(self, fraction: float) -> tuple[Pairs, Pairs]:
        """Training and held-out pairs."""
        parts = split(list(zip(self.sources, self.targets, strict=True)), fraction)
        kept, held = (Pairs([s for s, _ in part], [t for _, t in part]) for part in parts)
        return kept, held


@dataclass(frozen=True)
class TokenPairs:
    """Sentence pairs as token ids, without start and end tokens."""

    sources: list[np.ndarray]
    targets: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def source_lengths(self) -> np.ndarray:
        """Tokens of each source, its end token counted."""
        return np.array([len(row) + 1 for row in self.sources], dtype=np.int64)

    @property
    def target_lengths(self) -> np.ndarray:
        """Tokens of each target, its end token counted."""
        return np.array([len(row) + 1 for row in self.targets], dtype=np.int64)


def read_pairs(source: str, target: str, combined: str, data: DataConfig) -> Pairs:
    """Two files of one sentence a line, or one TSV file.

    Raises:
        ValueError: naming the file and the line.
    """
    pairs = _read_tsv(combined, data) if combined else read_parallel(source, target)
    if data.lowercase:
        pairs = [(s.lower(), t.lower()) for s, t in pairs]
    kept = [(s.strip(), t.strip()) for s, t in pairs if s.strip() and t.strip()]
    if not kept:
        raise ValueError(f"{combined or source} holds no sentence pair")
    sources, targets = zip(*kept, strict=True)
    return Pairs(list(sources), list(targets))


def _read_tsv(path: str, data: DataConfig) -> list[tuple[str, str]]:
    columns = []
    for name, field, default in (
        ("source_field", data.source_field, 0),
        ("target_field", data.target_field, 1),
    ):
        if field.isdecimal():
            columns.append(int(field) - 1)
        elif field in ("source", "target"):
            columns.append(default)
        else:
            raise ValueError(f"data.{name} must be a column number for a TSV file, not {field!r}")
    pairs = []
    for number, line in enumerate(iter_lines(path), 1):
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) <= max(columns):
            raise ValueError(
                f"{path}, line {number}: {len(cells)} column(s), but column {max(columns) + 1} is asked for"
            )
        pairs.append((cells[columns[0]], cells[columns[1]]))
    return pairs


def tokenise(pairs: Pairs, tokenizer: Tokenizer, max_tokens: int) -> tuple[TokenPairs, int]:
    """Ids of each pair, and how many pairs were left out for being longer than ``max_tokens``."""
    sources, targets = encode(pairs.sources, tokenizer), encode(pairs.targets, tokenizer)
    kept = [
        (source, target)
        for source, target in zip(sources, targets, strict=True)
        if max(len(source), len(target)) < max_tokens
    ]
    if not kept:
        raise ValueError(f"every sentence pair is longer than data.max_tokens = {max_tokens}")
    short_sources, short_targets = zip(*kept, strict=True)
    return TokenPairs(list(short_sources), list(short_targets)), len(sources) - len(kept)


def encode(texts: Sequence[str], tokenizer: Tokenizer) -> list[np.ndarray]:
    """Ids of each text, without start and end."""
    return [np.array(ids, dtype=np.int32) for ids in tokenizer.encode_batch(texts)]


def split(examples: Sequence[T], fraction: float) -> tuple[list[T], list[T]]:
    """Hold out about this share of the examples, chosen by their position alone."""
    if not fraction:
        return list(examples), []
    held = [_position_hash(index) < fraction for index in range(len(examples))]
    kept = [example for example, out in zip(examples, held, strict=True) if not out]
    return kept, [example for example, out in zip(examples, held, strict=True) if out]


def _position_hash(index: int) -> float:
    """A number in [0, 1) that looks random and is always the same."""
    return int.from_bytes(hashlib.blake2b(str(index).encode(), digest_size=6).digest()) / 2**48


# --------------------------------------------------------------------------- texts and dialogues
@dataclass(frozen=True)
class Row:
    """A sequence for a decoder-only model and which of its tokens the loss counts."""

    ids: np.ndarray
    predicted: np.ndarray  # bool, as long as ids; the first is never predicted


def read_documents(path: str, data: DataConfig) -> tuple[list[list[str]], int]:
    """Texts of a file, each a document of one text, and how many ``drop_pattern`` left out.

    ``text`` reads the whole file as one document, ``lines`` each line, ``jsonl`` the field
    ``data.text_field`` of each object.

    Raises:
        ValueError: naming the file and the line.
    """
    if data.format == "text":
        documents = [["\n".join(iter_lines(path))]]
    elif data.format == "jsonl":
        documents = [[_text_of(value, data.text_field, where)] for where, value in _json_lines(path)]
    else:
        documents = [[line] for line in iter_lines(path) if line.strip()]
    return _drop(documents, data.drop_pattern, path)


def read_dialogues(path: str, data: DataConfig) -> tuple[list[list[str]], int]:
    """Conversations of a JSONL file, each a list of turns, and how many were left out.

    ``data.turns_field`` holds a list of strings or of objects with a ``text`` or ``content``.

    Raises:
        ValueError: naming the file and the line.
    """
    dialogues = []
    for where, value in _json_lines(path):
        turns = value.get(data.turns_field) if isinstance(value, dict) else None
        if not isinstance(turns, list):
            raise ValueError(f"{where}: no list of turns under {data.turns_field!r}")
        texts = [_turn_text(turn, where).strip() for turn in turns]
        dialogues.append([text for text in texts if text])
    return _drop([turns for turns in dialogues if len(turns) > 1], data.drop_pattern, path)


def _json_lines(path: str) -> list[tuple[str, Any]]:
    values = []
    for number, line in enumerate(iter_lines(path), 1):
        if line.strip():
            try:
                values.append((f"{path}, line {number}", msgspec.json.decode(line)))
            except msgspec.DecodeError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
    return values


def _text_of(value: Any, field: str, where: str) -> str:
    text = value.get(field) if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise ValueError(f"{where}: no text under {field!r}")
    return text


def _turn_text(turn: Any, where: str) -> str:
    if isinstance(turn, str):
        return turn
    field = "content" if isinstance(turn, dict) and "content" in turn else "text"
    return _text_of(turn, field, where)


def _drop(documents: list[list[str]], pattern: str, path: str) -> tuple[list[list[str]], int]:
    kept = documents
    if pattern:
        unwanted = re.compile(pattern, re.IGNORECASE)
        kept = [texts for texts in documents if not any(unwanted.search(text) for text in texts)]
    if not kept:
        raise ValueError(f"{path} holds no document to train on")
    return kept, len(documents) - len(kept)


def text_rows(documents: list[list[str]], tokenizer: Tokenizer, length: int, bos: int, eos: int) -> list[Row]:
    """Documents packed one after another into rows of ``length``; every token is predicted once.

    A row's first token is the last of the row before it, as context only.
    """
    parts = [np.array([bos, *ids, eos]) for texts in documents for ids in tokenizer.encode_batch(texts)]
    stream = np.concatenate(parts).astype(np.int32)
    rows = []
    for start in range(0, len(stream) - 1, length - 1):
        ids = stream[start : start + length]
        rows.append(Row(ids, np.arange(len(ids)) > 0))
    return rows


def dialogue_rows(
    documents: list[list[str]], tokenizer: Tokenizer, length: int, bos: int, eos: int
) -> list[Row]:
    """Each conversation as ``<s>turn</s>turn</s>...``, cut between turns into rows of at most ``length``.

    Every turn but a conversation's first is a reply and is predicted, its end included. A row that
    goes on with a conversation begins with the turn before, as context. A turn that is longer than a
    row is cut.
    """
    rows, longest = [], (length - 1) // 2 - 1
    for texts in documents:
        turns = [[*ids[:longest], eos] for ids in tokenizer.encode_batch(texts)]
        ids, predicted = [bos, *turns[0]], [False] * (1 + len(turns[0]))
        for before, turn in pairwise(turns):
            if len(ids) + len(turn) > length:
                rows.append(Row(np.array(ids, dtype=np.int32), np.array(predicted)))
                ids, predicted = [bos, *before], [False] * (1 + len(before))
            ids += turn
            predicted += [True] * len(turn)
        rows.append(Row(np.array(ids, dtype=np.int32), np.array(predicted)))
    return rows
