"""The models that are held in memory, and the prefixes that need not be computed again."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch

from tfm.core.catalog import WEIGHTS, describe, find_checkpoint
from tfm.core.checkpoint import Checkpoint, load_checkpoint
from tfm.core.engine.protocol import HeldModel, ModelInfo, Precision
from tfm.core.kv_cache import KVCache

SMALL_MODEL = 500_000_000  # parameters; below, "auto" on a CPU is float32: a token at a time it is no slower
PREFIX_SHARE = 8  # one part in so many of the model budget is for retained caches
MAX_PREFIXES = 64
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def choose_precision(wanted: Precision, n_parameters: int, device: str) -> str:
    """What ``auto`` means here: bf16 on a card and for large models, else fp32.

    Raises:
        NotImplementedError: a precision that this version does not compute in.
    """
    if wanted == "auto":
        return "fp32" if device == "cpu" and n_parameters < SMALL_MODEL else "bf16"
    if wanted not in DTYPES:
        raise NotImplementedError(f"precision {wanted} is not available: choose auto, fp32 or bf16")
    return wanted


class PrefixCache:
    """Key/value caches of sequences that were decoded lately, found again by what they begin with.

    Entries are one lane each and belong to the cache: what :meth:`lookup` returns must be copied
    (``select``) before it is written to. Least recently used ones go first.
    """

    def __init__(self, max_bytes: int, on_growth: Callable[[], None] | None = None) -> None:
        self.n_reused = 0  # tokens that need not be computed again, so far
        self._max_bytes = max_bytes
        self._on_growth = on_growth
        self._nbytes = 0  # counted along, so that other threads may ask at any time
        self._entries: OrderedDict[tuple[tuple[int, ...], tuple[int, ...]], KVCache] = OrderedDict()

    def lookup(self, source: Sequence[int], ids: Sequence[int]) -> tuple[KVCache, int] | None:
        """The retained cache that shares the longest beginning with ``ids``, and how long that is.

        ``source`` must be the same in full (empty for a decoder-only model). None: nothing to reuse.
        """
        best: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        longest = 0
        for known_source, known_ids in self._entries:
            if known_source == tuple(source):
                shared = _shared_length(known_ids, ids)
                if shared > longest:
                    best, longest = (known_source, known_ids), shared
        if best is None:
            return None
        self._entries.move_to_end(best)
        self.n_reused += longest
        return self._entries[best], longest

    def store(self, source: Sequence[int], ids: Sequence[int], cache: KVCache) -> None:
        """Keep a one-lane cache that holds exactly ``ids``; what it extends is forgotten."""
        assert cache.n_lanes == 1 and cache.lengths[0] == len(ids)
        key = (tuple(source), tuple(ids))
        for known in list(self._entries):
            shared = _shared_length(known[1], key[1]) if known[0] == key[0] else -1
            if shared == len(key[1]):  # a longer one is there already
                self._entries.move_to_end(known)
                return
            if shared == len(known[1]):
                self._nbytes -= self._entries.pop(known).nbytes()
        self._entries[key] = cache
        self._nbytes += cache.nbytes()
        while len(self._entries) > MAX_PREFIXES or self._nbytes > self._max_bytes:
            self._nbytes -= self._entries.popitem(last=False)[1].nbytes()
        if self._on_growth is not None:
            self._on_growth()

    def clear(self) -> None:
        self._entries.clear()
        self._nbytes = 0

    def nbytes(self) -> int:
        return self._nbytes


@dataclass
class LoadedModel:
    """A checkpoint in memory. ``users`` counts the requests that hold on to it."""

    checkpoint: Checkpoint
    info: ModelInfo
    precision: str
    device: str
    size_bytes: int
    prefixes: PrefixCache
    users: int = 0
    stamp: tuple[int, int] = field(default=(0, 0))


class ModelStore:
    """Loads models and keeps them until their room is needed; the longest unused one goes first.

    Of the budget, one part in ``PREFIX_SHARE`` is for the retained prefixes of all models together, the
    rest for their weights; what the machine has free is looked at, too.

    ``load`` may take seconds and is called from one thread at a time; the rest returns at once.
    """

    def __init__(self, budget_bytes: int | None = None) -> None:
        self.device = "cuda:0" if torch.cuda.is_available() else "cpu"
        self.threads = torch.get_num_threads()
        self._budget = budget_bytes or _default_budget(self.device)
        self._models: OrderedDict[tuple[Path, str], LoadedModel] = OrderedDict()
        self._loading: Path | None = None
        self._lock = threading.Lock()

    @property
    def device_name(self) -> str:
        if self.device == "cpu":
            return "cpu"
        return f"{self.device} {torch.cuda.get_device_name(0)}"

    def find(self, name: str, precision: Precision | None) -> LoadedModel | None:
        """A model that is loaded already, in the given precision (None: in any); or None.

        Like ``load``, it counts its caller as a user, who must ``release`` it.
        """
        try:
            path = find_checkpoint(name)
            stamp = _stamp(path)
        except (ValueError, NotImplementedError):
            # A run lets go of its old checkpoints; what was loaded of one can be talked to all the same.
            with self._lock:
                left = [(key[0], held.stamp) for key, held in self._models.items() if held.info.name == name]
            if not left:
                return None  # load says why
            path, stamp = left[-1]
        try:
            with self._lock:
                return self._take(path, precision, stamp)
        except (ValueError, NotImplementedError):
            return None

    def load(
        self, name: str, precision: Precision | None, progress: Callable[[float, str], None]
    ) -> LoadedModel:
        """A loaded model, read from disk if need be; ``progress`` gets a fraction and a stage.

        What ``progress`` raises ends the loading; nothing of the model is kept then.

        Raises:
            ValueError: there is no such checkpoint, or (CheckpointError) it is broken.
            MemoryError: it does not fit beside the models in use.
        """
        path = find_checkpoint(name)
        stamp = _stamp(path)
        with self._lock:
            if (model := self._take(path, precision, stamp)) is not None:
                return model
        try:
            self._loading = path
            return self._read(path, precision, stamp, progress)
        finally:
            self._loading = None

    def _read(
        self,
        path: Path,
        precision: Precision | None,
        stamp: tuple[int, int],
        progress: Callable[[float, str], None],
    ) -> LoadedModel:
        progress(0.0, "reading the header")
        info = describe(path)
        chosen = choose_precision(precision or "auto", info.n_parameters, self.device)
        size = info.n_parameters * DTYPES[chosen].itemsize
        with self._lock:
            self._make_room(info.name, size)
        checkpoint = load_checkpoint(
            path,
            self.device,
            DTYPES[chosen],
            lambda done, total: progress(done / max(total, 1), "reading the weights"),
        )
        progress(1.0, "ready")
        model = LoadedModel(
            checkpoint=checkpoint,
            info=info,
            precision=chosen,
            device=self.device,
            size_bytes=sum(parameter.nbytes for parameter in checkpoint.model.parameters()),
            prefixes=PrefixCache(self._budget // PREFIX_SHARE, self._trim_prefixes),
            users=1,
            stamp=stamp,
        )
        with self._lock:
            self._models[path, chosen] = model
        return model

    def release(self, model: LoadedModel) -> None:
        with self._lock:
            model.users -= 1

    def drop(self, model: LoadedModel) -> None:
        """Forget a model that nobody uses."""
        with self._lock:
            for key, held in list(self._models.items()):
                if held is model and held.users == 0:
                    del self._models[key]

    def unload(self, path: Path) -> int:
        """Let go of a checkpoint in every precision; how many bytes that gave back.

        Raises:
            ValueError: a request uses it.
        """
        freed, path = 0, path.resolve()
        with self._lock:
            held = [(key, model) for key, model in self._models.items() if key[0].resolve() == path]
            if self._loading is not None and self._loading.resolve() == path:
                raise ValueError(f"{path.name} is being loaded; cancel that first")
            if any(model.users for _, model in held):
                raise ValueError(f"{held[0][1].info.name} is in use; stop what it does first")
            for key, model in held:
                freed += model.size_bytes + model.prefixes.nbytes()
                del self._models[key]
        held.clear()
        self._give_back()
        return freed

    def held(self) -> tuple[HeldModel, ...]:
        """What is in memory, the one used last at the end."""
        with self._lock:
            return tuple(
                HeldModel(
                    path=str(path),
                    precision=precision,
                    device=model.device,
                    size_bytes=model.size_bytes,
                    prefix_bytes=model.prefixes.nbytes(),
                    users=model.users,
                )
                for (path, precision), model in self._models.items()
            )

    @property
    def budget_bytes(self) -> int:
        return self._budget

    def _give_back(self) -> None:
        if self.device != "cpu":
            torch.cuda.empty_cache()

    def forget_prefixes(self) -> None:
        """Give back what is only kept for speed."""
        with self._lock:
            for model in self._models.values():
                model.prefixes.clear()
        self._give_back()

    def _take(self, path: Path, precision: Precision | None, stamp: tuple[int, int]) -> LoadedModel | None:
        for key in reversed(self._models):  # the one used last, where several precisions will do
            model = self._models[key]
            if key[0] != path or model.stamp != stamp:
                continue
            if precision is None or key[1] == choose_precision(
                precision, model.info.n_parameters, self.device
            ):
                self._models.move_to_end(key)
                model.users += 1
                return model
        return None

    def _make_room(self, name: str, size: int) -> None:
        held = sum(model.size_bytes for model in self._models.values())
        weights = self._budget - self._budget // PREFIX_SHARE
        for key, model in list(self._models.items()):
            if held + size <= weights and size <= _free_memory(self.device):
                return
            if model.users == 0:
                del self._models[key]
                held -= model.size_bytes
                self._give_back()
        if held + size > weights:
            raise MemoryError(
                f"{name} needs {size / 1e9:.1f} GB; of the {weights / 1e9:.1f} GB set aside for the weights "
                f"of models, {held / 1e9:.1f} GB are in use"
            )
        free = _free_memory(self.device)
        if size > free:
            raise MemoryError(f"{name} needs {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free here")

    def _trim_prefixes(self) -> None:
        """One model's prefixes grew: those of models that nobody uses make room, the longest unused first."""
        with self._lock:
            held = sum(model.prefixes.nbytes() for model in self._models.values())
            for model in self._models.values():
                if held <= self._budget // PREFIX_SHARE:
                    return
                if model.users == 0:
                    held -= model.prefixes.nbytes()
                    model.prefixes.clear()


def check_room(model: LoadedModel, n_lanes: int, n_tokens: int) -> None:
    """Refuse before it hurts: a machine that runs out of memory kills the process without a word.

    Counts the keys and values of ``n_tokens`` each and the logits, which sampling holds in float64
    several times over. Raises MemoryError.
    """
    config = model.checkpoint.config
    numbers = 2 * config.n_decoder_layers * config.kv_heads * config.head_dim * n_tokens
    needed = n_lanes * (numbers * model.checkpoint.dtype.itemsize + 6 * 8 * config.vocab_size)
    free = _free_memory(model.device)
    if needed > free:
        asked = f"{n_lanes:,} lanes of {n_tokens:,} tokens"
        raise MemoryError(f"{asked} need {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free")


def _free_memory(device: str) -> int:
    """Bytes."""
    if device == "cpu":
        return int(psutil.virtual_memory().available)
    return int(torch.cuda.mem_get_info(device)[0])


def _shared_length(one: Sequence[int], other: Sequence[int]) -> int:
    shared = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        shared += 1
    return shared


def _stamp(path: Path) -> tuple[int, int]:
    """Changes when the weights are written anew, so that a checkpoint replaced on disk is read again."""
    try:
        status = os.stat(path / WEIGHTS)
    except OSError:  # reading the checkpoint says what is wrong
        return 0, 0
    return status.st_mtime_ns, status.st_size


def _default_budget(device: str) -> int:
    """Bytes for models: half of the memory, or four fifths of the card's."""
    if device == "cpu":
        return int(psutil.virtual_memory().total // 2)
    return int(torch.cuda.get_device_properties(device).total_memory // 5 * 4)
