"""From files to a corpus that can be trained on: a tokenizer, and token ids on the disk. Done once.

What was made lies in ``$TFM_HOME/cache`` under names that are hashes of all that it depends on: the
files' contents, how they are read, the tokenizer. A resumed run, and another run on the same corpus,
find it there. Whatever is in the cache can be deleted; it will be made again.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import tokenizers

from tfm.core.catalog import checkpoint_home
from tfm.core.config import ModelConfig
from tfm.core.tokenizer import Tokenizer
from tfm.train.config import TrainConfig
from tfm.train.corpus_files import Meter, files_of
from tfm.train.events import Preparing, Stage
from tfm.train.files import write_atomically
from tfm.train.token_store import StoreWriter, TokenStore, id_type, written

LAYOUT = 1  # of what tasks write; another number makes everything anew
PATIENCE = 2.0  # seconds of work without a word
_CHUNK = 1 << 20  # bytes of a file hashed at a time
_ABANDONED = 24 * 3600.0  # seconds after which half a cache entry is nobody's any more


@dataclass(frozen=True)
class Base:
    """A checkpoint that a run goes on or starts from; it settles the tokenizer and the architecture."""

    tokenizer: Tokenizer
    model_config: ModelConfig
    files: dict[str, bytes]  # that belong to it besides weights, by name


@dataclass(frozen=True)
class Prepared:
    """A corpus ready to be trained on."""

    tokenizer: Tokenizer
    model_config: ModelConfig
    files: dict[str, bytes]  # that belong to the checkpoint it starts from
    store: TokenStore
    key: str  # names this corpus, tokenised in this way


class Corpus(Protocol):
    """What a task knows of its files."""

    @property
    def files(self) -> list[str]:
        """Every file that is read."""

    def texts(self, meter: Meter) -> Iterator[str]:
        """What a tokenizer is trained on."""

    def columns(self, id_type: str) -> dict[str, str]:
        """The columns of its token store and their types."""

    def tokenise(
        self, writer: StoreWriter, tokenizer: Tokenizer, config: ModelConfig, meter: Meter
    ) -> Iterator[None]:
        """Write all columns; yields now and then."""


def cache_folder() -> Path:
    """Where prepared corpora lie; they are private to the user."""
    folder = checkpoint_home() / "cache"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ValueError(
            f"cannot create {folder}: {error.strerror}; set TFM_HOME to a folder you can write"
        ) from None
    return folder


def prepare(config: TrainConfig, corpus: Corpus, base: Base | None) -> Generator[Preparing, None, Prepared]:
    """Make a corpus ready, or find it ready; tells every two seconds how far it has come.

    Raises:
        ValueError: the files cannot be used, or the cache not be written; the sentence says why.
    """
    cache = cache_folder()
    _sweep(cache)
    files = yield from _fingerprint(corpus.files)
    if base is None:
        tokenizer = yield from _tokenizer(config, corpus, cache / f"tokenizer-{_key(files, config, '')}.json")
        model_config = config.model_config(tokenizer.vocab_size, dict(tokenizer.special_ids))
    else:
        tokenizer, model_config = base.tokenizer, base.model_config
    ends = f"{model_config.bos_id} {model_config.eos_id} {model_config.max_positions}"
    key = _key(files, config, f"{tokenizer.fingerprint} {ends}")
    store = yield from _store(corpus, tokenizer, model_config, cache / f"tokens-{key}")
    return Prepared(tokenizer, model_config, base.files if base else {}, store, key)


def _fingerprint(paths: list[str]) -> Generator[Preparing, None, str]:
    """SHA-256 of the contents of all files, in their order."""
    meter, tick, whole = Meter(paths), _Tick(), hashlib.sha256()
    for path in (file for name in paths for file in files_of(name)):
        file_hash = hashlib.sha256()
        if not path.is_file():
            raise ValueError(f"{path} is no plain file: a corpus is read more than once")
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                file_hash.update(chunk)
                meter.done += len(chunk)
                yield from tick.tell("reading", meter)
        whole.update(file_hash.digest())
    return whole.hexdigest()


def _key(files: str, config: TrainConfig, made_with: str) -> str:
    """Names what is made of the files; without ``made_with``, a tokenizer."""
    data = config.data
    names = ("train_source", "train_target", "valid_source", "valid_target", "train", "valid")
    irrelevant = (*names, "source_language", "target_language", "vocab_size" if made_with else "max_tokens")
    reading = {field: getattr(data, field) for field in data.__struct_fields__ if field not in irrelevant}
    named = [bool(getattr(data, field)) for field in names]  # which of the files is which
    version = tokenizers.__version__ if not made_with else ""
    parts = [LAYOUT, files, config.objective, reading, named, made_with, version]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]


def _tokenizer(config: TrainConfig, corpus: Corpus, path: Path) -> Generator[Preparing, None, Tokenizer]:
    """Train one, in a thread of its own so that this one can tell how far it is."""
    if path.is_file():
        return Tokenizer.load(path)
    meter, tick, unwanted = Meter(corpus.files), _Tick(), threading.Event()

    def texts() -> Iterator[str]:
        for text in corpus.texts(meter):
            if unwanted.is_set():
                return
            yield text

    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(Tokenizer.train, texts(), config.data.vocab_size, config.data.min_frequency)
        try:
            while not made.done():
                time.sleep(0.01)
                yield from tick.tell("tokenizer", meter)
        finally:
            unwanted.set()
        tokenizer = made.result()
    write_atomically(path, tokenizer.to_json().encode())
    return tokenizer


def _store(
    corpus: Corpus, tokenizer: Tokenizer, config: ModelConfig, folder: Path
) -> Generator[Preparing, None, TokenStore]:
    store = TokenStore.open(folder)
    if store is not None:
        return store
    meter, tick = Meter(corpus.files), _Tick()
    with written(folder, corpus.columns(id_type(config.vocab_size))) as writer:
        for _ in corpus.tokenise(writer, tokenizer, config, meter):
            yield from tick.tell("tokens", meter)
    store = TokenStore.open(folder)
    assert store is not None
    return store


class _Tick:
    """Lets a word through every ``PATIENCE`` seconds."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def tell(self, stage: Stage, meter: Meter) -> Iterator[Preparing]:
        if time.monotonic() - self._last >= PATIENCE:
            self._last = time.monotonic()
            yield Preparing(stage=stage, done=min(meter.done, meter.total), total=meter.total)


def _sweep(cache: Path) -> None:
    """Remove what a killed trainer left half written, but nothing that another may be writing."""
    for entry in cache.glob(".tmp-*"):
        if time.time() - entry.stat().st_mtime > _ABANDONED:
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
