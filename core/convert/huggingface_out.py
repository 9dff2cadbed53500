"""Export: a checkpoint folder of ours becomes a Hugging Face folder that other programs open.

The family is the one whose table expresses the config: the one it was imported from, else the first.
Numbers keep the type in which they are stored; tensors pass through one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from tfm.core.checkpoint import committed, read_config, read_training
from tfm.core.config import ModelConfig
from tfm.core.convert.families import family_for
from tfm.core.convert.huggingface_in import KEPT
from tfm.core.convert.table import ConvertError, Entry, Family, parameter_shapes
from tfm.core.convert.tokenizer_files import framed
from tfm.core.convert.weights import WEIGHTS, Planned, StoredTensors, write_tensors
from tfm.core.tokenizer import Tokenizer

MAX_LENGTH = 512  # tokens that an encoder-decoder writes unless it is told otherwise


@dataclass(frozen=True)
class Exported:
    """What went out, for whoever tells the user."""

    path: Path
    architecture: str
    n_bytes: int


def export_folder(
    source: Path, destination: Path, *, progress: Callable[[int, int], None] | None = None
) -> Exported:
    """Convert a checkpoint folder; ``destination`` appears when all is well, and not before.

    Raises:
        ValueError: an architecture that no published family has, a broken checkpoint, or a destination
            that exists.
    """
    if destination.exists():
        raise ConvertError(f"{destination} exists already; name a folder that does not")
    config, training = read_config(source), read_training(source)
    origin = training.get("origin")
    origin = origin if isinstance(origin, dict) else {}
    try:
        family, shaped = family_for(config, origin.get("model_type"))
    except ConvertError as error:
        raise ConvertError(f"{source}: {error}") from None
    tokenizer = Tokenizer.load(source / "tokenizer.json")
    files = {
        "config.json": _config(source, family, shaped, origin),
        "generation_config.json": _generation(config),
        **_tokenizer(source, config, tokenizer, origin),
    }
    for ours, theirs in (("card.md", "README.md"), ("chat_template.jinja", "chat_template.jinja")):
        if (source / ours).is_file():
            files[theirs] = (source / ours).read_bytes()
    stored = StoredTensors(source)
    entries = family.entries(shaped)
    planned = [
        Planned(name, _dtype(entry, stored), entry.shape) for entry in entries for name in entry.written
    ]
    shapes = _checked_shapes(stored, config, shaped)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with committed(destination, manifest=False) as temporary:
        write_tensors(temporary / WEIGHTS, planned, _converted(entries, stored, shapes), progress)
        for name, data in files.items():
            (temporary / name).write_bytes(data)
        n_bytes = sum(path.stat().st_size for path in temporary.iterdir())
    return Exported(destination, family.architecture, n_bytes)


# --------------------------------------------------------------------------- tensors
def _checked_shapes(
    stored: StoredTensors, config: ModelConfig, shaped: ModelConfig
) -> dict[str, tuple[int, ...]]:
    """Shapes of all parameters of the exported model, those that we lack (biases) included."""
    for name, shape in parameter_shapes(config).items():
        if name not in stored.names:
            raise ConvertError(f"{stored.folder / WEIGHTS}: tensor {name} is missing")
        if stored.shape(name) != shape:
            raise ConvertError(
                f"{stored.folder / WEIGHTS}: tensor {name} has shape {list(stored.shape(name))}, "
                f"but config.json asks for {list(shape)}"
            )
    return parameter_shapes(shaped)


def _dtype(entry: Entry, stored: StoredTensors) -> torch.dtype:
    there = [stored.dtype(name) for name in entry.ours if name in stored.names]
    return there[0] if there else torch.float32


def _converted(
    entries: list[Entry], stored: StoredTensors, shapes: dict[str, tuple[int, ...]]
) -> Iterator[tuple[str, Tensor]]:
    def part(name: str) -> Tensor:
        return stored.read(name) if name in stored.names else torch.zeros(shapes[name])

    for entry in entries:
        joined = entry.join(part)
        for name in entry.written:
            yield name, joined


# --------------------------------------------------------------------------- small files
def _config(source: Path, family: Family, config: ModelConfig, origin: dict[str, Any]) -> bytes:
    raw = family.write_config(config)
    if raw.get("pad_token_id", config.pad_id) != config.pad_id:
        raise ConvertError(
            f"{source}: {family.model_type} counts positions from pad_id + 1, "
            f"but position_offset is {config.position_offset} and pad_id {config.pad_id}"
        )
    raw |= _ids(config) | (origin.get("token_ids") or {})
    dtypes = {str(dtype).removeprefix("torch.") for dtype in _dtypes(source)}
    raw["torch_dtype"] = dtypes.pop() if len(dtypes) == 1 else "float32"
    return _json(raw)


def _dtypes(source: Path) -> set[torch.dtype]:
    stored = StoredTensors(source)
    return {stored.dtype(name) for name in stored.names}


def _ids(config: ModelConfig) -> dict[str, Any]:
    ends = config.stop_ids
    ids: dict[str, Any] = {
        "pad_token_id": config.pad_id,
        "bos_token_id": config.bos_id,
        "eos_token_id": list(ends) if len(ends) > 1 else config.eos_id,
    }
    if config.family == "encoder-decoder":
        ids["decoder_start_token_id"] = config.start_id
        ids["forced_bos_token_id"] = config.target_prefix[0] if config.target_prefix else None
    return ids


def _generation(config: ModelConfig) -> bytes:
    generation = _ids(config)
    if config.banned_ids:
        generation["bad_words_ids"] = [[token] for token in config.banned_ids]
    if config.family == "encoder-decoder":
        generation["max_length"] = min(config.max_positions, MAX_LENGTH)
    return _json({name: value for name, value in generation.items() if value is not None})


def _tokenizer(
    source: Path, config: ModelConfig, tokenizer: Tokenizer, origin: dict[str, Any]
) -> dict[str, bytes]:
    if (source / "vocab.json").is_file():  # it came without a tokenizer.json: give back what came
        kept = (*KEPT, "tokenizer_config.json")
        return {name: (source / name).read_bytes() for name in kept if (source / name).is_file()}
    prefix, suffix = _frame(config)
    names = {index: token for token, index in tokenizer.specials.items()}
    tokens = origin.get("special_tokens")
    if not isinstance(tokens, dict):
        ids = {"bos_token": config.bos_id, "eos_token": config.eos_id, "pad_token": config.pad_id,
               "mask_token": config.mask_id}  # fmt: skip
        if config.family == "encoder-only":
            ids |= {"cls_token": config.bos_id, "sep_token": config.eos_id}
        tokens = {name: names[index] for name, index in ids.items() if index is not None and index in names}
    types = ["token_type_ids"] if config.n_token_types else []
    options = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.max_positions,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", *types, "attention_mask"],
        **tokens,
    }
    template = source / "chat_template.jinja"
    if template.is_file():  # readers older than the file of its own look for it here
        options["chat_template"] = template.read_text(encoding="utf-8")
    return {
        "tokenizer.json": framed(tokenizer.to_json(), prefix, suffix).encode(),
        "tokenizer_config.json": _json(options),
    }


def _frame(config: ModelConfig) -> tuple[list[int], list[int]]:
    """Ids that a reader puts before and after a text."""
    begin = [] if config.bos_id is None else [config.bos_id]
    end = [] if config.eos_id is None else [config.eos_id]
    if config.family == "decoder-only":
        return begin, []
    return (list(config.source_prefix), end) if config.family == "encoder-decoder" else (begin, end)


def _json(value: dict[str, Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
