"""The checkpoint folder: a model that explains itself, with no pickle anywhere.

    model.safetensors   weights, each tensor once (a tied table is not repeated)
    config.json         ModelConfig
    tokenizer.json      the whole text pipeline
    card.md             what it is, what it was made from, what it is good for
    training.json       how it was made: scores, languages, data, versions
    MANIFEST.json       size and SHA-256 of each file, written last

A folder is written under a temporary name beside its place, flushed to the disk and renamed: the
rename is the commit. More files (an optimiser's state) can be added to the same commit.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from tfm.core.config import ModelConfig
from tfm.core.model import Model, assemble_model, check_shapes
from tfm.core.tokenizer import Tokenizer

FORMAT = 1
MANIFEST = "MANIFEST.json"
REQUIRED = ("model.safetensors", "config.json", "tokenizer.json")
CHUNK = 1 << 20  # bytes hashed between two looks at whether to go on

Progress = Callable[[int, int], None]
"""Told bytes done and bytes in all, between two tensors or chunks; what it raises ends the work."""


class CheckpointError(ValueError):
    """A sentence that names the folder or file and what is wrong with it."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint."""

    model: Model
    config: ModelConfig
    tokenizer: Tokenizer
    path: Path
    training: dict[str, Any] = field(default_factory=dict)
    other_tokenizer: Tokenizer | None = None  # Marian cuts target texts by a model of their own

    @property
    def target_tokenizer(self) -> Tokenizer:
        """What target texts are encoded with; both tokenizers decode alike."""
        return self.other_tokenizer or self.tokenizer

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype


class _File(msgspec.Struct, frozen=True):
    size: int
    sha256: str


class _Manifest(msgspec.Struct, frozen=True):
    format: int
    files: dict[str, _File]


# --------------------------------------------------------------------------- writing
def weights_of(model: torch.nn.Module, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """The parameters as a checkpoint holds them: on the CPU, shared ones once, optionally converted."""
    return {
        name: parameter.detach().to(device="cpu", dtype=dtype or parameter.dtype).contiguous()
        for name, parameter in model.named_parameters()
    }


def save_checkpoint(
    folder: Path | str,
    model: Model | Mapping[str, Tensor],
    config: ModelConfig,
    tokenizer: Tokenizer,
    card: str,
    training: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    extra_tensors: Mapping[str, Mapping[str, Tensor]] | None = None,
    extra_files: Mapping[str, bytes] | None = None,
) -> Path:
    """Write a folder in one commit; an older one of the same name is replaced only at the end.

    Args:
        model: a model, or its weights by name.
        extra_tensors: further safetensors files of the same commit, by file name.
        extra_files: further plain files of the same commit, by file name.

    Raises:
        CheckpointError: the place cannot be written; nothing is changed then.
    """
    folder = Path(folder)
    weights = weights_of(model, dtype) if isinstance(model, torch.nn.Module) else dict(model)
    files = {**small_files(config, tokenizer, card, training), **(extra_files or {})}
    with committed(folder) as temporary:
        save_file(weights, temporary / "model.safetensors", metadata={"format": "pt"})
        for name, tensors in (extra_tensors or {}).items():
            save_file(dict(tensors), temporary / name)
        for name, data in files.items():
            (temporary / name).write_bytes(data)
    return folder


def small_files(
    config: ModelConfig, tokenizer: Tokenizer, card: str, training: dict[str, Any] | None = None
) -> dict[str, bytes]:
    """All files of a checkpoint but the weights, by name."""
    return {
        "config.json": config.to_json(),
        "tokenizer.json": tokenizer.to_json().encode(),
        "card.md": card.encode(),
        "training.json": msgspec.json.format(msgspec.json.encode(training or {}), indent=2) + b"\n",
    }


@contextmanager
def committed(folder: Path, manifest: bool = True) -> Iterator[Path]:
    """A folder to write files into, which takes the place of ``folder`` when all has gone well.

    Raises:
        CheckpointError: the place cannot be written; nothing is changed then.
    """
    temporary = folder.with_name(f".tmp-{folder.name}-{secrets.token_hex(4)}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _commit(temporary, folder, manifest)
    except (OSError, safetensors.SafetensorError) as error:  # safetensors has its own word for a full disk
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(f"cannot write {folder}: {getattr(error, 'strerror', None) or error}") from None
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _commit(temporary: Path, folder: Path, manifest: bool) -> None:
    if manifest:
        files = {path.name: _File(path.stat().st_size, _sha256(path)) for path in sorted(temporary.iterdir())}
        encoded = msgspec.json.encode(_Manifest(FORMAT, files))
        (temporary / MANIFEST).write_bytes(msgspec.json.format(encoded, indent=2) + b"\n")
    for path in temporary.iterdir():
        path.chmod(0o644)
        _flush(path)
    _flush(temporary)
    old = folder.with_name(f".tmp-old-{folder.name}-{secrets.token_hex(4)}")
    if folder.exists():
        folder.rename(old)
    temporary.rename(folder)
    _flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """``progress`` is told the size of each chunk."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while data := stream.read(CHUNK):
            digest.update(data)
            if progress is not None:
                progress(len(data))
    return digest.hexdigest()


# --------------------------------------------------------------------------- reading
def load_checkpoint(
    path: Path | str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
) -> Checkpoint:
    """Load a folder in evaluation mode; ``dtype`` None keeps floats as float32 on a CPU.

    ``progress`` may raise to end the loading: what was read by then is let go.

    Raises:
        CheckpointError: naming the file and the tensor or key that is wrong.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise CheckpointError(f"no checkpoint folder at {folder}")
    for name in REQUIRED:
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} is no checkpoint: {name} is missing")
    _check_sizes(folder)
    config = read_config(folder)
    tokenizer = _read_tokenizer(folder / "tokenizer.json", config)
    other = folder / "target_tokenizer.json"
    other_tokenizer = _read_tokenizer(other, config) if other.is_file() else None
    weights = read_tensors(folder / "model.safetensors", device, dtype or default_dtype(device), progress)
    try:
        model = assemble_model(config, weights)
    except ValueError as error:
        raise CheckpointError(f"{folder / 'model.safetensors'}: {error}") from None
    return Checkpoint(model, config, tokenizer, folder, read_training(folder), other_tokenizer)


def _read_tokenizer(path: Path, config: ModelConfig) -> Tokenizer:
    try:
        tokenizer = Tokenizer.load(path)
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    if tokenizer.vocab_size > config.vocab_size and config.unk_id is not None:
        tokenizer = tokenizer.limited(config.vocab_size, config.unk_id)
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"{path.parent}: {path.name} has {tokenizer.vocab_size} tokens, "
            f"config.json only {config.vocab_size}"
        )
    return tokenizer


def default_dtype(device: torch.device | str) -> torch.dtype:
    """float32 on a CPU, bfloat16 on an accelerator."""
    return torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16


def read_config(folder: Path) -> ModelConfig:
    """config.json of a folder. Raises CheckpointError."""
    try:
        return ModelConfig.from_json((folder / "config.json").read_bytes(), str(folder / "config.json"))
    except OSError as error:
        raise CheckpointError(f"cannot read {folder / 'config.json'}: {error.strerror}") from None
    except ValueError as error:
        raise CheckpointError(str(error)) from None


def read_training(folder: Path) -> dict[str, Any]:
    """training.json of a folder, empty where there is none. Raises CheckpointError."""
    try:
        return msgspec.json.decode((folder / "training.json").read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{folder / 'training.json'}: {error}") from None


def read_tensors(
    path: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """All tensors of a safetensors file; floats are converted one by one, so nothing is held twice.

    Raises:
        CheckpointError: naming the file.
    """
    tensors = {}
    for name, tensor in each_tensor(path, device, progress):
        tensors[name] = tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
    return tensors


def each_tensor(
    path: Path, device: torch.device | str = "cpu", progress: Progress | None = None
) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a safetensors file with their names, one at a time.

    The file is read, not memory-mapped: a file that shrinks meanwhile is an error, not a SIGBUS.

    Raises:
        CheckpointError: naming the file.
    """
    try:
        done, total = 0, path.stat().st_size
        with safetensors.safe_open(path, framework="pt", device=str(device), backend="pread") as file:
            for name in file.keys():  # noqa: SIM118  (the handle is no dict)
                tensor = file.get_tensor(name)
                done += tensor.nbytes
                yield name, tensor
                if progress is not None:
                    progress(done, total)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from None


def verify_checkpoint(path: Path | str, progress: Progress | None = None) -> None:
    """Check every file against the manifest, every tensor against the config, every number for being finite.

    The weights are looked at one tensor at a time, so a checkpoint larger than the memory can be checked.

    Raises:
        CheckpointError: for the first thing that is wrong.
    """
    folder = Path(path)
    for name in REQUIRED:
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} is no checkpoint: {name} is missing")
    _check_sizes(folder)
    manifest, weights = _read_manifest(folder), folder / "model.safetensors"
    total = sum(file.size for file in manifest.files.values()) + weights.stat().st_size
    hashed = 0

    def chunk(size: int) -> None:
        nonlocal hashed
        hashed += size
        if progress is not None:
            progress(hashed, total)

    for name, file in manifest.files.items():
        if _sha256(folder / name, chunk) != file.sha256:
            raise CheckpointError(f"{folder / name} has changed: its SHA-256 is not the one in {MANIFEST}")
    config = read_config(folder)
    for name in ("tokenizer.json", "target_tokenizer.json"):
        if (folder / name).is_file():
            _read_tokenizer(folder / name, config)
    read_training(folder)
    shapes = {}
    for name, tensor in each_tensor(weights, progress=_after(hashed, total, progress)):
        shapes[name] = tensor.shape
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{weights}: tensor {name} holds values that are not finite")
    try:
        check_shapes(config, shapes)
    except ValueError as error:
        raise CheckpointError(f"{weights}: {error}") from None


def _after(before: int, total: int, progress: Progress | None) -> Progress | None:
    """Progress of a part that comes after ``before`` bytes of the whole."""
    if progress is None:
        return None
    return lambda done, _: progress(before + done, total)


def _check_sizes(folder: Path) -> None:
    if not (folder / MANIFEST).exists():
        return  # a folder made by hand; its files are checked as they are read
    for name, file in _read_manifest(folder).files.items():
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: {name} is missing; copy the folder again")
        size = (folder / name).stat().st_size
        if size != file.size:
            raise CheckpointError(
                f"{folder / name} has {size:,} bytes instead of {file.size:,}; copy the folder again"
            )


def _read_manifest(folder: Path) -> _Manifest:
    path = folder / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=_Manifest)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    if manifest.format > FORMAT:
        raise CheckpointError(f"{folder} was written by a newer tfm-tui (format {manifest.format})")
    outside = [name for name in manifest.files if Path(name).name != name]
    if outside:
        raise CheckpointError(f"{path}: {outside[0]!r} is no plain file name")
    return manifest
