"""GGUF in: the files of llama.cpp become checkpoint folders.

The header and the tokenizer are read in a child process with limits; the numbers are read here, one
tensor at a time, and are what the file's blocks say to the last bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import torch
from torch import Tensor

from tfm.core.chat import TEMPLATE_FILE
from tfm.core.checkpoint import CheckpointError, committed, small_files
from tfm.core.config import ModelConfig, RopeScaling
from tfm.core.convert.gguf_file import Inspected, TensorPlace, whole_number
from tfm.core.convert.gguf_quants import dequantize
from tfm.core.convert.limited import LimitedError, run_limited
from tfm.core.convert.table import ConvertError, Family, key, module, tensor
from tfm.core.convert.weights import WEIGHTS, Planned, write_tensors
from tfm.core.positions import rotary_frequencies
from tfm.core.tokenizer import Tokenizer

# Architectures that differ from llama in nothing but what their tensors show, and whether the rows of
# queries and keys were reordered so that the two features turned together stand side by side.
INTERLEAVED = {"llama": True, "qwen2": False, "qwen3": False}
PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
FREQUENCIES = "rope_freqs.weight"
ENDS = (
    "</s>", "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>",
    "<end_of_turn>",
)  # fmt: skip
"""Control tokens that end a turn wherever they occur, whether or not the file says so."""

LAYER, OURS = "blk.{i}", "decoder_layers.{i}"
RULES = (
    tensor("token_embd.weight", "embedding.tokens.weight"),
    tensor(f"{LAYER}.attn_norm.weight", f"{OURS}.self_residual.norm.weight"),
    *module(f"{LAYER}.attn_q", f"{OURS}.self_attention.q_proj"),
    *module(f"{LAYER}.attn_k", f"{OURS}.self_attention.k_proj"),
    *module(f"{LAYER}.attn_v", f"{OURS}.self_attention.v_proj"),
    *module(f"{LAYER}.attn_output", f"{OURS}.self_attention.out_proj"),
    tensor(f"{LAYER}.attn_q_norm.weight", f"{OURS}.self_attention.q_norm.weight"),
    tensor(f"{LAYER}.attn_k_norm.weight", f"{OURS}.self_attention.k_norm.weight"),
    tensor(f"{LAYER}.ffn_norm.weight", f"{OURS}.ff_residual.norm.weight"),
    *module(f"{LAYER}.ffn_gate", f"{OURS}.feed_forward.gate"),
    *module(f"{LAYER}.ffn_up", f"{OURS}.feed_forward.up"),
    *module(f"{LAYER}.ffn_down", f"{OURS}.feed_forward.down"),
    tensor("output_norm.weight", "decoder_norm.weight"),
    tensor("output.weight", "head.projection.weight"),
)
KEYS = (
    key("embedding_length", "d_model"),
    key("feed_forward_length", "d_ff"),
    key("block_count", "n_decoder_layers"),
    key("attention.head_count", "n_heads"),
    key("attention.head_count_kv", "n_kv_heads", default=None),
    key("attention.key_length", "d_head", default=None),
    key("context_length", "max_positions"),
    key("attention.sliding_window", "sliding_window", default=None),
)


def _family(architecture: str) -> Family:
    return Family(
        model_type=architecture,
        architecture=architecture,
        keys=KEYS,
        fixed={
            "family": "decoder-only", "positions": "rotary", "norm": "rmsnorm", "norm_position": "pre",
            "activation": "silu", "gated_ff": True,
        },
        rules=RULES,
    )  # fmt: skip


# --------------------------------------------------------------------------- the way in
def import_gguf(
    path: Path | str,
    destination: Path | str,
    *,
    dtype: torch.dtype | None = None,
    card: str | None = None,
    origin: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make a checkpoint folder of a GGUF file; it appears when all is well, and not before.

    Args:
        dtype: what to store; None keeps what is in the file, quantised numbers as float32.
        card: the text of card.md; None: one made of what the file says of itself.
        origin: what is known of where the file came from, for training.json.
        progress: told the bytes written and the bytes in all.

    Raises:
        ConvertError: (a ValueError) naming the file and the key or the tensor that is wrong.
        CheckpointError: (a ValueError) the destination cannot be written.
    """
    path, destination = Path(path), Path(destination)
    found = _inspect(path)
    try:
        tokenizer = Tokenizer.from_json(found.tokenizer)
        with path.open("rb") as file:
            family, config = _shape(found, tokenizer, file)
            places = _match(found, family, config)
            about = _record(path, found, tokenizer, origin or {})
            files = small_files(config, tokenizer, _card(path, found) if card is None else card, about)
            template = found.metadata.get("tokenizer.chat_template")
            if isinstance(template, str):
                files[TEMPLATE_FILE] = template.encode()
            planned = [
                Planned(name, dtype or PLAIN.get(place.type, torch.float32), place.shape)
                for name, place in places.items()
            ]
            destination.parent.mkdir(parents=True, exist_ok=True)
            with committed(destination) as temporary:
                for name, data in files.items():
                    (temporary / name).write_bytes(data)
                interleaved = INTERLEAVED[family.model_type]
                made = ((name, _made(file, place, config, interleaved)) for name, place in places.items())
                write_tensors(temporary / WEIGHTS, planned, made, progress)
    except CheckpointError:
        raise
    except OSError as error:
        raise ConvertError(f"{error.filename or path}: {error.strerror}") from None
    except (ValueError, NotImplementedError) as error:
        raise ConvertError(f"{path} {error}") from None
    return destination


def _inspect(path: Path) -> Inspected:
    if not path.is_file():
        raise ConvertError(f"there is no file {path}")
    try:
        reply = run_limited("tfm.core.convert.gguf_file:inspect", str(path))
    except LimitedError as error:
        raise ConvertError(f"{path} {error}") from None
    return msgspec.convert(reply, Inspected)


# --------------------------------------------------------------------------- metadata to ModelConfig
def _shape(found: Inspected, tokenizer: Tokenizer, file: BinaryIO) -> tuple[Family, ModelConfig]:
    """The table to read by and the config."""
    metadata, places = found.metadata, {place.name: place for place in found.tensors}
    architecture = metadata.get("general.architecture")
    if architecture not in INTERLEAVED:
        raise ValueError(
            f"holds a model of architecture {architecture!r}; only {', '.join(INTERLEAVED)} can be imported"
        )
    raw = {
        name.removeprefix(f"{architecture}."): _same_for_all_layers(value)
        for name, value in metadata.items()
        if name.startswith(f"{architecture}.")
    }
    if raw.get("expert_count"):
        raise ValueError(
            "is a mixture of experts; only models with one feed-forward block a layer can be imported"
        )
    if "token_embd.weight" not in places:
        raise ValueError("has no tensor 'token_embd.weight'")
    family = _family(str(architecture))
    try:
        fields = family.read_config(raw)
    except ConvertError as error:
        raise ValueError(f"cannot be used: metadata key {architecture}.{error}") from None
    config = ModelConfig.create(
        **fields,
        **_token_ids(metadata, tokenizer),
        vocab_size=places["token_embd.weight"].shape[0],
        norm_eps=_short(raw.get("attention.layer_norm_rms_epsilon", 1e-5)),
        rope_theta=_short(raw.get("rope.freq_base", 10_000.0)),
        rope_scaling=_linear_scaling(raw),
        qkv_bias="blk.0.attn_q.bias" in places,
        out_bias="blk.0.attn_output.bias" in places,
        ff_bias="blk.0.ffn_up.bias" in places,
        qk_norm="blk.0.attn_q_norm.weight" in places,
        tie_output="output.weight" not in places,
    )
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"has {tokenizer.vocab_size:,} tokens, but embeddings for {config.vocab_size:,} only"
        )
    turned, value_size = raw.get("rope.dimension_count"), raw.get("attention.value_length")
    if any(size not in (None, config.head_dim) for size in (turned, value_size)):
        raise ValueError("turns a part of each head only, or has values of another size than its keys")
    if FREQUENCIES in places:
        config = config.replace(rope_scaling=_llama3_scaling(config, _read(file, places[FREQUENCIES])))
    return family, config


def _same_for_all_layers(value: Any) -> Any:
    """A value that is given layer by layer, where all layers agree."""
    if isinstance(value, list) and value and all(item == value[0] for item in value):
        return value[0]
    return value


def _short(value: Any) -> float:
    """A float32 as it was written in decimals: 1e-05 and not 9.999999747378752e-06."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"cannot be used: {value!r} stands where a number is wanted")
    return float(f"{value:.7g}")


def _linear_scaling(raw: Mapping[str, Any]) -> RopeScaling | None:
    kind = raw.get("rope.scaling.type", "linear" if "rope.scale_linear" in raw else "none")
    if kind == "none":
        return None
    if kind != "linear":
        raise ValueError(
            f"stretches its positions by {kind!r} (rope.scaling.type); only linear can be imported"
        )
    factor = _short(raw.get("rope.scaling.factor", raw.get("rope.scale_linear", 1.0)))
    return None if factor == 1.0 else RopeScaling(kind="linear", factor=factor)


def _llama3_scaling(config: ModelConfig, divisors: Tensor) -> RopeScaling:
    """Which llama3 scaling divides the frequencies by these numbers.

    The file holds the quotients and not the rule. The rule's borders have been the same in every model
    that was published with it, so its one free number is the largest quotient.
    """
    scaling = RopeScaling(kind="llama3", factor=_short(divisors.max().item()))
    plain = rotary_frequencies(config.head_dim, config.rope_theta)
    wanted = plain / rotary_frequencies(config.head_dim, config.rope_theta, scaling)
    if divisors.shape != wanted.shape or not torch.allclose(divisors, wanted, rtol=1e-4):
        raise ValueError(
            "stretches its positions (tensor 'rope_freqs.weight') in a way that is not Llama 3's"
        )
    return scaling


def _token_ids(metadata: Mapping[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """The special ids. A first token that is not put in front of texts is none to us."""

    def named(name: str) -> int | None:
        whole = f"tokenizer.ggml.{name}_token_id"
        index = None if metadata.get(whole) is None else whole_number(metadata, whole)
        return index if index is not None and index < tokenizer.vocab_size else None

    is_llama3 = metadata.get("tokenizer.ggml.pre") in ("llama-bpe", "llama3", "llama-v3")
    by_default = is_llama3 or metadata.get("tokenizer.ggml.model") == "llama"
    add_bos = metadata.get("tokenizer.ggml.add_bos_token", by_default) is True
    eos = named("eos")
    ends = {named("eot"), named("eom"), *(tokenizer.specials.get(name) for name in ENDS)}
    return {
        "bos_id": named("bos") if add_bos else None,
        "eos_id": eos,
        "eos_ids": tuple(sorted(index for index in ends - {eos} if index is not None)),
        "pad_id": named("padding") or 0,
    }


# --------------------------------------------------------------------------- numbers
def _match(found: Inspected, family: Family, config: ModelConfig) -> dict[str, TensorPlace]:
    """Where each tensor of ours lies."""
    left = {place.name: place for place in found.tensors}
    places: dict[str, TensorPlace] = {}
    for entry in family.entries(config):
        (theirs,), (ours,) = entry.names, entry.ours
        place = left.pop(theirs, None)
        if place is None:
            raise ValueError(f"has no tensor {theirs!r}")
        if place.shape != entry.shape:
            raise ValueError(
                f"holds tensor {theirs!r} in shape {list(place.shape)}, but its metadata asks for "
                f"{list(entry.shape)}"
            )
        places[ours] = place
    left.pop(FREQUENCIES, None)
    if left:
        raise ValueError(f"holds tensor {min(left)!r}, which has no place in a {family.model_type} model")
    return places


def _made(file: BinaryIO, place: TensorPlace, config: ModelConfig, interleaved: bool) -> Tensor:
    """A tensor as our model wants it."""
    stored = _read(file, place)
    if interleaved and ".attn_q." in place.name:
        return straighten(stored, config.n_heads)
    if interleaved and ".attn_k." in place.name:
        return straighten(stored, config.kv_heads)
    return stored


def _read(file: BinaryIO, place: TensorPlace) -> Tensor:
    """The numbers as the file has them; what is quantised becomes float32."""
    file.seek(place.start)
    data = np.fromfile(file, dtype=np.uint8, count=place.n_bytes)
    if len(data) != place.n_bytes:  # it was checked, and has shrunk since
        raise ValueError(f"is cut short in tensor {place.name!r}")
    if place.type in PLAIN:
        numbers = torch.from_numpy(data).view(PLAIN[place.type])
    else:
        numbers = torch.from_numpy(dequantize(data, place.type))
    # Not a number goes through a minimum and a maximum, and neither makes a copy as isfinite() does.
    if not all(bool(bound.isfinite()) for bound in numbers.aminmax()):
        raise ValueError(f"holds values in tensor {place.name!r} that are not finite")
    return numbers.view(place.shape)


def straighten(stored: Tensor, n_heads: int) -> Tensor:
    """Undo llama.cpp's order of the rows of a query or key projection.

    It turns features 2i and 2i + 1 of a head together; we turn i and i + d/2, as the original weights do.
    """
    pairs = stored.reshape(n_heads, -1, 2, *stored.shape[1:])
    return pairs.transpose(1, 2).reshape(stored.shape)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --------------------------------------------------------------------------- what the folder says of itself
def _record(path: Path, found: Inspected, tokenizer: Tokenizer, origin: Mapping[str, str]) -> dict[str, Any]:
    """training.json: where it came from, and what its chat template calls its special tokens."""
    tokens = {}
    for name in ("bos", "eos"):
        index = found.metadata.get(f"tokenizer.ggml.{name}_token_id")
        if isinstance(index, int) and 0 <= index < tokenizer.vocab_size:
            tokens[f"{name}_token"] = tokenizer.piece(index)
    return {
        "origin": {
            "format": "gguf",
            "source": path.name,
            "sha256": _sha256(path),
            "types": _count_types(found),
            "special_tokens": tokens,
            **origin,
        }
    }


def _card(path: Path, found: Inspected) -> str:
    """What the file says of itself, a line for each fact."""

    def said(name: str) -> str:
        text = found.metadata.get(f"general.{name}", "")
        return " ".join(str(text).split())[:200] if isinstance(text, str) else ""

    kinds = ", ".join(f"{count} {kind}" for kind, count in _count_types(found).items())
    facts = [
        f"Imported from `{path.name}` (GGUF, {kinds} tensors).",
        *(
            f"{name.capitalize()}: {said(name)}."
            for name in ("organization", "license", "source.url")
            if said(name)
        ),
        "The numbers are the file's own, quantised ones as float32: not those from before it was quantised.",
    ]
    return f"# {said('name') or path.stem}\n\n" + "\n".join(f"- {fact}" for fact in facts) + "\n"


def _count_types(found: Inspected) -> dict[str, int]:
    """How many tensors there are of each type."""
    types = [place.type for place in found.tensors]
    return {kind: types.count(kind) for kind in sorted(set(types))}
