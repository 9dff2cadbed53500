"""Corpora: text files to token ids. What each example is; not how examples are batched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfm.core.tokenizer import Tokenizer
from tfm.train.config import DataConfig
from tfm.train.corpus_files import iter_lines, read_parallel


@dataclass(frozen=True)
class Pairs:
    """Sentence pairs as text."""

    sources: list[str]
    targets: list[str]

    def __len__(self) -> int:
        return len(self.sources)


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
            raise ValueError(f"{path}, line {number}: {len(cells)} column(s), but column {max(columns) + 1} is asked for")
        pairs.append((cells[columns[0]], cells[columns[1]]))
    return pairs


def tokenise(pairs: Pairs, tokenizer: Tokenizer, max_tokens: int) -> tuple[TokenPairs, int]:
    """Ids of each pair, and how many pairs were left out for being longer than ``max_tokens``."""
    sources, targets = _encode(pairs.sources, tokenizer), _encode(pairs.targets, tokenizer)
    kept = [
        (source, target)
        for source, target in zip(sources, targets, strict=True)
        if max(len(source), len(target)) < max_tokens
    ]
    if not kept:
        raise ValueError(f"every sentence pair is longer than data.max_tokens = {max_tokens}")
    short_sources, short_targets = zip(*kept, strict=True)
    return TokenPairs(list(short_sources), list(short_targets)), len(sources) - len(kept)


def _encode(texts: Sequence[str], tokenizer: Tokenizer) -> list[np.ndarray]:
    return [np.array(ids, dtype=np.int32) for ids in tokenizer.encode_batch(texts)]
