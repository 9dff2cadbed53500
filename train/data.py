"""Corpora as text: what stands in the files, one example at a time. Nothing is held in memory.

A document is a list of texts: the turns of a conversation, or one text alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import msgspec

from tfm.train.config import DataConfig
from tfm.train.corpus_files import Meter, check_parallel, iter_lines
from tfm.train.dataset_folder import is_dataset, iter_rows

Pair = tuple[str, str]
Document = list[str]

_BLOCK = 1 << 17  # characters of a long text that are tokenised as one


def held_out(position: int, fraction: float) -> bool:
    """Whether the example at this position is for validation: about this share are, always the same."""
    if not fraction:
        return False
    digest = hashlib.blake2b(str(position).encode(), digest_size=6).digest()
    return int.from_bytes(digest) / 2**48 < fraction


# --------------------------------------------------------------------------- sentence pairs
def iter_pairs(
    source: str, target: str, combined: str, data: DataConfig, meter: Meter | None = None
) -> Iterator[Pair]:
    """Two files of one sentence a line, or one file: JSONL where ``data.format`` says so, else TSV.

    Pairs with an empty side are left out.

    Raises:
        ValueError: naming the file and the line.
    """
    if not combined:
        pairs = _two_files(source, target, meter)
    elif data.format == "jsonl":
        pairs = _pairs_of_objects(combined, data, meter)
    else:
        pairs = _columns(combined, data, meter)
    for one, other in pairs:
        one, other = one.strip(), other.strip()
        if one and other:
            yield (one.lower(), other.lower()) if data.lowercase else (one, other)


def _two_files(source: str, target: str, meter: Meter | None) -> Iterator[Pair]:
    n_source = n_target = 0
    for one, other in zip_longest(iter_lines(source, meter), iter_lines(target, meter)):
        n_source, n_target = n_source + (one is not None), n_target + (other is not None)
        if one is not None and other is not None:
            yield one, other
    check_parallel(source, n_source, target, n_target)


def _columns(path: str, data: DataConfig, meter: Meter | None) -> Iterator[Pair]:
    columns = []
    for name, field, default in (
        ("source_field", data.source_field, 0),
        ("target_field", data.target_field, 1),
    ):
        if field.isdecimal() and int(field) > 0:
            columns.append(int(field) - 1)
        elif field in ("source", "target"):
            columns.append(default)
        else:
            raise ValueError(f"data.{name} must be a column number (from 1) for a TSV file, not {field!r}")
    for number, line in enumerate(iter_lines(path, meter), 1):
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) <= max(columns):
            raise ValueError(
                f"{path}, line {number}: {len(cells)} column(s), but column {max(columns) + 1} is asked for"
            )
        yield cells[columns[0]], cells[columns[1]]


def _pairs_of_objects(path: str, data: DataConfig, meter: Meter | None) -> Iterator[Pair]:
    for where, value in _json_lines(path, meter):
        yield _text_of(value, data.source_field, where), _text_of(value, data.target_field, where)


# --------------------------------------------------------------------------- texts and conversations
def iter_documents(path: str, data: DataConfig, meter: Meter | None = None) -> Iterator[Document]:
    """The documents of a file: objects of a JSONL file (``data.text_field``), conversations, or lines.

    Of ``dialogue`` the objects hold, under ``data.turns_field``, a list of strings or of objects with a
    ``text`` or ``content``; conversations of one turn are left out.

    Raises:
        ValueError: naming the file and the line.
    """
    if data.format == "dialogue":
        yield from _conversations(path, data, meter)
    elif data.format == "jsonl":
        for where, value in _json_lines(path, meter):
            yield [_text_of(value, data.text_field, where)]
    else:
        for line in iter_lines(path, meter):
            if line.strip():
                yield [line]


def iter_blocks(path: str, meter: Meter | None = None, size: int = _BLOCK) -> Iterator[str]:
    """A whole file as one text, in blocks that are tokenised one by one as they would be together.

    A block ends before a single space between two other characters: there, a byte-level tokenizer
    always begins a new word, and the space belongs to it. A text without such places is cut anyhow.
    """
    rest, parts, length = "", list[str](), 0
    for number, line in enumerate(iter_lines(path, meter)):
        parts.append("\n" + line if number else line)
        length += len(parts[-1])
        if length >= size:
            text = rest + "".join(parts)
            cut = _last_word(text) if len(text) < 16 * size else _last_word(text) or len(text)
            if cut:
                yield text[:cut]
            rest, parts, length = text[cut:], [], 0
    if rest or parts:
        yield rest + "".join(parts)


def _last_word(text: str) -> int:
    """Where the last word begins that has a single space before it; 0 where none does."""
    at = len(text) - 1
    while (at := text.rfind(" ", 1, at)) > 0:
        if not text[at - 1].isspace() and not text[at + 1].isspace():
            return at
    return 0


def wanted_filter(pattern: str) -> Callable[[Document], bool]:
    """Whether a document is to be kept: ``data.drop_pattern`` matches none of its texts."""
    if not pattern:
        return lambda document: True
    unwanted = re.compile(pattern, re.IGNORECASE)
    return lambda document: not any(unwanted.search(text) for text in document)


def _conversations(path: str, data: DataConfig, meter: Meter | None) -> Iterator[Document]:
    for where, value in _json_lines(path, meter):
        turns = value.get(data.turns_field) if isinstance(value, dict) else None
        if not isinstance(turns, list):
            raise ValueError(f"{where}: no list of turns under {data.turns_field!r}")
        texts = [text for turn in turns if (text := _turn_text(turn, where).strip())]
        if len(texts) > 1:
            yield texts


def _turn_text(turn: Any, where: str) -> str:
    if isinstance(turn, str):
        return turn
    field = "content" if isinstance(turn, dict) and "content" in turn else "text"
    return _text_of(turn, field, where)


# --------------------------------------------------------------------------- JSON lines
def _json_lines(path: str, meter: Meter | None) -> Iterator[tuple[str, Any]]:
    """Where each object stands, and the object: of a JSONL file, or a row of a dataset folder."""
    if is_dataset(Path(path)):
        yield from iter_rows(Path(path), meter.count if meter else lambda n_bytes: None)
        return
    for number, line in enumerate(iter_lines(path, meter), 1):
        if line.strip():
            try:
                yield f"{path}, line {number}", msgspec.json.decode(line)
            except msgspec.DecodeError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None


def _text_of(value: Any, field: str, where: str) -> str:
    """The text under a field; ``translation.de`` is ``de`` of the object under ``translation``."""
    found = value
    for name in [field] if isinstance(value, dict) and field in value else field.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    if not isinstance(found, str):
        raise ValueError(f"{where}: no text under {field!r}")
    return found
