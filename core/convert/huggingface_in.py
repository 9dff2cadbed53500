"""Import: a Hugging Face folder becomes a checkpoint folder of ours.

    config.json, generation_config.json   -> config.json       the family's table; ids that end a text
    *.safetensors                         -> model.safetensors  renamed, laid out anew, numbers untouched
    tokenizer.json or what there is       -> tokenizer.json     parsed in a limited child first
    tokenizer_config.json, chat template  -> training.json, chat_template.jinja

Shapes are checked against the config before anything is written. Tensors pass through one by one.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from tfm.core.checkpoint import committed, small_files
from tfm.core.config import ModelConfig
from tfm.core.convert import tokenizer_files
from tfm.core.convert.families import family_of
from tfm.core.convert.limited import LimitedError, run_limited
from tfm.core.convert.table import ConvertError, Entry, Family
from tfm.core.convert.token_ids import TokenFacts, token_fields
from tfm.core.convert.weights import WEIGHTS, Planned, StoredTensors, write_tensors
from tfm.core.tokenizer import Tokenizer

MAX_JSON = 16 << 20  # bytes
TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# What a folder that names none of them means; BERT's says no more than whether it lower-cases.
USUAL = {
    "unk_token": ("[UNK]", "<unk>"),
    "sep_token": ("[SEP]",),
    "pad_token": ("[PAD]", "<pad>"),
    "cls_token": ("[CLS]",),
    "mask_token": ("[MASK]", "<mask>"),
}
# Kept beside the checkpoint, so that an export gives back the very files.
KEPT = ("source.spm", "target.spm", "vocab.json", "sentencepiece.bpe.model")
TOKENIZER_SECONDS, TOKENIZER_MEMORY = 120.0, 4 << 30


@dataclass(frozen=True)
class Imported:
    """What came in, for whoever tells the user."""

    path: Path
    config: ModelConfig
    architecture: str
    n_parameters: int
    dropped: tuple[str, ...]  # tensors of theirs that ours has no use for


def import_folder(
    source: Path,
    destination: Path,
    *,
    source_language: str | None = None,
    target_language: str | None = None,
    origin: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Convert a folder; ``destination`` appears when all is well, and not before.

    Args:
        source_language, target_language: codes of a model of many languages, such as ``eng_Latn``.
        origin: what the card names as the source; None: the folder.
        progress: told the bytes written and the bytes in all.

    Raises:
        ValueError: one sentence that names the file and the tensor or key.
    """
    if not source.is_dir():
        raise ConvertError(f"no folder at {source}")
    raw = _read_json(source / "config.json")
    if raw is None:
        raise ConvertError(f"{source} is no Hugging Face folder: config.json is missing")
    stored = StoredTensors(source)
    facts = _token_facts(source, raw, source_language, target_language)
    try:
        family = family_of(raw, stored.names)
        fields = family.read_config(raw)
        config = ModelConfig.create(**fields, **token_fields(family, fields["vocab_size"], facts))
    except ValueError as error:
        raise ConvertError(f"{source / 'config.json'}: {error}") from None
    pipeline = facts.pipeline
    if (pipeline.n_known or pipeline.largest_id + 1) > config.vocab_size:
        raise ConvertError(
            f"{source}: the tokenizer has ids up to {(pipeline.n_known or pipeline.largest_id + 1) - 1:,}, "
            f"but vocab_size in config.json is {config.vocab_size:,}"
        )
    matched, dropped = match(family, config, stored)
    files = _files(source, raw, family, config, facts, origin or str(source), dropped)
    planned = [
        Planned(name, stored.dtype(theirs) if theirs else torch.float32, shape)
        for entry, theirs in matched
        for name, shape in _parts(entry)
    ]
    destination.parent.mkdir(parents=True, exist_ok=True)
    with committed(destination) as temporary:
        write_tensors(temporary / WEIGHTS, planned, _converted(matched, stored), progress)
        for name, data in files.items():
            (temporary / name).write_bytes(data)
    n_parameters = sum(torch.Size(tensor.shape).numel() for tensor in planned)
    return Imported(destination, config, family.architecture, n_parameters, tuple(dropped))


# --------------------------------------------------------------------------- tensors
def match(
    family: Family, config: ModelConfig, stored: StoredTensors
) -> tuple[list[tuple[Entry, str | None]], list[str]]:
    """Each tensor of the table with the name under which it is stored (None: zeros), and what is left over.

    Raises:
        ConvertError: naming the tensor that is missing, of the wrong shape or type, or unknown.
    """
    known = {_full_name(family, name): name for name in stored.names}
    matched: list[tuple[Entry, str | None]] = []
    used: set[str] = set()
    for entry in family.entries(config):
        theirs = next((known[name] for name in entry.names if name in known), None)
        if theirs is None and not entry.zeros:
            raise ConvertError(f"{stored.folder}: tensor {entry.names[0]} is missing")
        if theirs is not None:
            used.add(theirs)
            stored.dtype(theirs)
            if stored.shape(theirs) != entry.shape:
                raise ConvertError(
                    f"{stored.path(theirs)}: tensor {theirs} has shape {list(stored.shape(theirs))}, "
                    f"but config.json asks for {list(entry.shape)}"
                )
        matched.append((entry, theirs))
    left = {full: name for full, name in known.items() if name not in used}
    for full in list(left):
        if any(fnmatch.fnmatchcase(full, pattern) for pattern in family.ignored):
            continue
        if (
            full == "lm_head.weight"
            or full.endswith("predictions.decoder.weight")
            or full in _repeats(matched)
        ):
            continue  # a second copy of a table that config.json declares to be tied
        raise ConvertError(
            f"{stored.path(left[full])}: tensor {left[full]} has no place in {family.model_type}; "
            "is this folder another architecture?"
        )
    return matched, sorted(left.values())


def _repeats(matched: list[tuple[Entry, str | None]]) -> set[str]:
    return {name for entry, _ in matched for name in entry.names}


def _full_name(family: Family, name: str) -> str:
    """The name as the family's main class stores it: prefix added, old endings renamed."""
    for old, new in family.renamed.items():
        if name.endswith(old):
            name = name.removesuffix(old) + new
    heads = ("lm_head.", "cls.", "final_logits_bias", "multiple_choice_head.")
    if family.prefix and not name.startswith((family.prefix, *heads)):
        return family.prefix + name
    return name


def _parts(entry: Entry) -> Iterator[tuple[str, tuple[int, ...]]]:
    shape = entry.shape[::-1] if entry.layout == "transposed" else entry.shape
    inner = shape[2:] if entry.layout == "row" else shape[1:]
    for name, rows in zip(entry.ours, entry.rows, strict=True):
        yield name, (rows, *inner)


def _converted(
    matched: list[tuple[Entry, str | None]], stored: StoredTensors
) -> Iterator[tuple[str, Tensor]]:
    for entry, theirs in matched:
        tensor = torch.zeros(entry.shape) if theirs is None else stored.read(theirs)
        yield from entry.split(tensor).items()


# --------------------------------------------------------------------------- everything else
def _token_facts(
    source: Path, raw: Mapping[str, Any], source_language: str | None, target_language: str | None
) -> TokenFacts:
    options = _read_json(source / "tokenizer_config.json") or {}
    listed = _read_json(source / "special_tokens_map.json") or {}
    size = raw.get("vocab_size")
    pipeline = read_tokenizer(source, options, size if isinstance(size, int) else 0)
    tokens = {}
    for name in TOKEN_NAMES:
        usual = next((token for token in USUAL.get(name, ()) if token in pipeline.specials), None)
        content = _content(options.get(name)) or _content(listed.get(name)) or usual
        if content is not None:
            tokens[name] = content
    return TokenFacts(
        raw=raw,
        generation=_read_json(source / "generation_config.json") or {},
        pipeline=pipeline,
        tokens=tokens,
        source_language=source_language or _content(options.get("src_lang")),
        target_language=target_language or _content(options.get("tgt_lang")),
    )


def read_tokenizer(
    source: Path, options: dict[str, Any] | None = None, size: int = 0
) -> tokenizer_files.Pipeline:
    """Parse a folder's tokenizer in a limited child.

    Raises:
        ConvertError: naming the file, whatever it does to its parser.
    """
    kind = tokenizer_files.kind_of(source)
    if kind is None:
        raise ConvertError(
            f"{source}: tokenizer.json is missing, and so are the files it could be made of "
            "(vocab.json and merges.txt, vocab.txt, source.spm)"
        )
    request = tokenizer_files.Request(folder=str(source), kind=kind, options=options or {}, size=size)
    try:
        reply = run_limited(
            "tfm.core.convert.tokenizer_files:read",
            msgspec.to_builtins(request),
            memory=TOKENIZER_MEMORY,
            seconds=TOKENIZER_SECONDS,
        )
    except LimitedError as error:
        what = source / "tokenizer.json" if kind == "tokenizer.json" else f"{source}: the tokenizer"
        raise ConvertError(f"{what}: {error}") from None
    return msgspec.convert(reply, tokenizer_files.Pipeline)


def _files(
    source: Path,
    raw: Mapping[str, Any],
    family: Family,
    config: ModelConfig,
    facts: TokenFacts,
    origin: str,
    dropped: list[str],
) -> dict[str, bytes]:
    languages = [name for name in (facts.source_language, facts.target_language) if name]
    training = {
        "origin": {
            "format": "huggingface",
            "source": origin,
            "model_type": family.model_type,
            "architecture": family.architecture,
            "token_ids": {
                name: raw.get(name)
                for name in ("bos_token_id", "eos_token_id", "pad_token_id")
                if name in raw
            },
            "special_tokens": facts.tokens,
            "dropped": dropped,
        },
        **({"languages": languages, "language_codes": facts.language_codes} if languages else {}),
    }
    card = _card(family, config, origin, _license(source), dropped)
    files = small_files(config, Tokenizer.from_json(facts.pipeline.text), card, training)
    if facts.pipeline.target is not None:
        files["target_tokenizer.json"] = facts.pipeline.target.encode()
    template = chat_template(source)
    if template is not None:
        files["chat_template.jinja"] = template.encode()
    if not (source / "tokenizer.json").is_file():
        for name in KEPT:
            if (source / name).is_file():
                files[name] = (source / name).read_bytes()
        if (source / "tokenizer_config.json").is_file():
            files["tokenizer_config.json"] = (source / "tokenizer_config.json").read_bytes()
    return files


def chat_template(source: Path) -> str | None:
    """The template of chats, wherever the folder keeps it; the default one of several."""
    own = source / "chat_template.jinja"
    if own.is_file():
        return _read_text(own)
    for file in ("chat_template.json", "tokenizer_config.json"):
        found = (_read_json(source / file) or {}).get("chat_template")
        if isinstance(found, list):
            named = {item.get("name"): item.get("template") for item in found if isinstance(item, dict)}
            found = named.get("default") or next(iter(named.values()), None)
        if isinstance(found, str) and found:
            return found
    return None


def _card(family: Family, config: ModelConfig, origin: str, licence: str | None, dropped: list[str]) -> str:
    doing = {
        "encoder-decoder": "translates or rewrites a text",
        "decoder-only": "continues a text",
        "encoder-only": "fills masks"
        if config.mask_id is not None
        else "gives hidden states; it has no head",
    }
    lines = [
        f"# {family.architecture} from {origin}",
        "",
        f"Imported, not trained here. This {config.family} model {doing[config.family]}.",
        "",
        f"- licence: {licence or 'not stated in the folder; ask its publisher'}",
    ]
    if dropped:
        lines.append(f"- left out, as nothing here uses them: {', '.join(dropped[:8])}"
                     + (f" and {len(dropped) - 8} more" if len(dropped) > 8 else ""))  # fmt: skip
    return "\n".join(lines) + "\n"


def _license(source: Path) -> str | None:
    readme = source / "README.md"
    if not readme.is_file():
        return None
    head = readme.read_bytes()[:20_000].decode("utf-8", errors="replace")
    found = re.search(r"^license:\s*([\w.+-]+)\s*$", head, flags=re.MULTILINE)
    return found.group(1) if found else None


def _content(token: Any) -> str | None:
    """A token is written as a string or as an object with its content."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _read_text(path: Path) -> str:
    if path.stat().st_size > MAX_JSON:
        raise ConvertError(f"{path} is larger than {MAX_JSON:,} bytes")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConvertError(f"{path} cannot be read: {error}") from None


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(_read_text(path), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ConvertError(f"{path}: {error}") from None
