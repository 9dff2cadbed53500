"""What all corpora have in common: which examples are for validation, and reading them in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, TypeVar

from tfm.train.config import DataConfig
from tfm.train.corpus_files import Meter
from tfm.train.data import Document, held_out, iter_documents, wanted_filter
from tfm.train.token_store import StoreWriter

T = TypeVar("T")
Split = Literal["train", "valid"]

MAX_SCORED = 2000  # training examples that stand in for a validation set where there is none
NO_VALIDATION = f"no validation set is named; scores are on the first {MAX_SCORED:,} training examples"
_BLOCK_EXAMPLES = 2000
_BLOCK_CHARACTERS = 1 << 21


def divided(train: Iterator[T], valid: Iterator[T] | None, fraction: float) -> Iterator[tuple[Split, T]]:
    """Every example and what it is for; without a validation set, a fraction of the others is one."""
    for position, example in enumerate(train):
        yield "valid" if valid is None and held_out(position, fraction) else "train", example
    for example in valid or ():
        yield "valid", example


def in_blocks(
    examples: Iterator[tuple[Split, T]], size: Callable[[T], int]
) -> Iterator[tuple[Split, list[T]]]:
    """Examples that are for the same, in their order, as many at a time as a tokenizer likes.

    ``size`` is the number of characters of an example.
    """
    blocks: dict[Split, list[T]] = {"train": [], "valid": []}
    characters = {"train": 0, "valid": 0}
    for split, example in examples:
        blocks[split].append(example)
        characters[split] += size(example)
        if len(blocks[split]) >= _BLOCK_EXAMPLES or characters[split] >= _BLOCK_CHARACTERS:
            yield split, blocks[split]
            blocks[split], characters[split] = [], 0
    for split, block in blocks.items():
        if block:
            yield split, block


def characters(document: Document) -> int:
    """The size of a document."""
    return sum(map(len, document))


class Documents:
    """The documents of some files, without those that ``data.drop_pattern`` matches."""

    def __init__(self, data: DataConfig, train: list[str], valid: list[str]) -> None:
        self._data, self._train, self._valid = data, train, valid
        self._wanted = wanted_filter(data.drop_pattern)

    @property
    def files(self) -> list[str]:
        return self._train + self._valid

    def examples(
        self, meter: Meter | None = None, notes: dict[str, int] | None = None
    ) -> Iterator[tuple[Split, Document]]:
        """Every document and what it is for; ``notes`` counts those left out of the training set."""
        valid = self._read(self._valid, meter) if self._valid else None
        return divided(self._read(self._train, meter, notes), valid, self._data.valid_fraction)

    def of(self, wanted: Split) -> Iterator[Document]:
        """The documents that are for training, or for validation."""
        if wanted == "valid" and self._valid:
            return self._read(self._valid)
        return (document for split, document in self.examples() if split == wanted)

    def texts(self, meter: Meter) -> Iterator[str]:
        for split, document in self.examples(meter):
            if split == "train":
                yield from document

    def check(self, writer: StoreWriter) -> None:
        """Raise ValueError if files were read in vain."""
        for column, files in (("train", self._train), ("valid", self._valid)):
            if files and not writer.n_rows(column):
                raise ValueError(f"{' and '.join(files)}: no document that can be used")

    def _read(
        self, files: list[str], meter: Meter | None = None, notes: dict[str, int] | None = None
    ) -> Iterator[Document]:
        for path in files:
            for document in iter_documents(path, self._data, meter):
                if self._wanted(document):
                    yield document
                elif notes is not None:
                    notes["dropped"] = notes.get("dropped", 0) + 1
