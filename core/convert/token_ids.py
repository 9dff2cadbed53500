"""Which ids begin, end, pad and mask a text: gathered from four files that need not agree.

What generation uses wins over what the config says, and what the tokenizer really does wins over
what its settings claim: a start token is set where the pipeline puts one before every text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfm.core.convert.table import ConvertError, Family, Raw
from tfm.core.convert.tokenizer_files import Pipeline

_CODE = re.compile(r"__([a-z]{2,3})__|([a-z]{3}_[A-Z][a-z]{3})|>>(\w+)<<")


@dataclass(frozen=True)
class TokenFacts:
    """All that a folder says about its tokens."""

    raw: Raw  # config.json
    generation: Raw  # generation_config.json
    pipeline: Pipeline
    tokens: Mapping[str, str]  # bos_token, eos_token, ... -> their text
    source_language: str | None
    target_language: str | None

    @property
    def language_codes(self) -> dict[str, int]:
        """Ids of the tokens that stand for languages, by the language's code."""
        codes = {}
        for token, index in self.pipeline.specials.items():
            found = _CODE.fullmatch(token)
            if found:
                codes[next(filter(None, found.groups()))] = index
        return codes

    def id_of(self, name: str) -> int | None:
        """The id that the tokenizer gives to its ``bos_token``, ``pad_token``, ..."""
        return self.pipeline.specials.get(self.tokens.get(name, ""))

    def stated(self, name: str) -> list[int]:
        """``eos_token_id`` and its like, from generation_config.json or else config.json."""
        value = self.generation.get(name)
        value = self.raw.get(name) if value is None else value
        values = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(item, int) and not isinstance(item, bool) for item in values):
            raise ConvertError(f"{name} must be a token id or a list of them, not {value!r}")
        size = self.raw.get("vocab_size")
        if isinstance(size, int) and any(item >= size for item in values):
            raise ConvertError(f"{name} must lie below vocab_size ({size:,}), not be {value!r}")
        return [item for item in values if item >= 0]  # Llama 1 wrote -1 for none


def token_fields(family: Family, vocab_size: int, facts: TokenFacts) -> dict[str, Any]:
    """The fields of ModelConfig that hold token ids.

    Raises:
        ConvertError: for ids that make no sense and for a language that the model does not know.
    """
    kind = family.fixed["family"]
    if kind == "decoder-only":
        return _continuing(facts)
    if kind == "encoder-only":
        return _reading(family, facts)
    return _translating(family, facts)


def _continuing(facts: TokenFacts) -> dict[str, Any]:
    prefix = facts.pipeline.prefix
    if len(prefix) > 1:
        raise ConvertError(
            f"the tokenizer puts {len(prefix)} tokens before a text, and only one is supported"
        )
    ends = facts.stated("eos_token_id") or _listed(facts.id_of("eos_token"))
    pads = facts.stated("pad_token_id") or _listed(facts.id_of("pad_token")) or ends or [0]
    return {
        "bos_id": prefix[0] if prefix else None,
        "eos_id": ends[0] if ends else None,
        "eos_ids": tuple(ends[1:]),
        "pad_id": pads[0],
    }


def _reading(family: Family, facts: TokenFacts) -> dict[str, Any]:
    prefix, suffix = facts.pipeline.prefix, facts.pipeline.suffix
    if len(prefix) > 1 or len(suffix) > 1:
        raise ConvertError("the tokenizer puts more than one token at an end of a text")
    pads = facts.stated("pad_token_id") or _listed(facts.id_of("pad_token")) or [0]
    return {
        "bos_id": prefix[0] if prefix else None,
        "eos_id": suffix[0] if suffix else None,
        "pad_id": pads[0],
        # Without a head there is nothing to fill a mask with.
        "mask_id": facts.id_of("mask_token") if family.fixed["mlm_transform"] else None,
    }


def _translating(family: Family, facts: TokenFacts) -> dict[str, Any]:
    ends = facts.stated("eos_token_id") or _listed(facts.id_of("eos_token"))
    pads = facts.stated("pad_token_id") or _listed(facts.id_of("pad_token"))
    starts = facts.stated("decoder_start_token_id") or facts.stated("bos_token_id")
    for name, found in (("eos_token_id", ends), ("pad_token_id", pads), ("decoder_start_token_id", starts)):
        if not found:
            raise ConvertError(f"{name} is missing")
    banned = facts.generation.get("bad_words_ids") or facts.raw.get("bad_words_ids") or []
    alone = [words[0] for words in banned if isinstance(words, list) and len(words) == 1]
    fields: dict[str, Any] = {
        "eos_id": ends[0],
        "eos_ids": tuple(ends[1:]),
        "pad_id": pads[0],
        "bos_id": next(iter(facts.stated("bos_token_id")), None),
        "decoder_start_id": starts[0],
        "banned_ids": tuple(alone),
    }
    if facts.pipeline.n_known is not None:
        fields["unk_id"] = facts.id_of("unk_token")
    return fields | _languages(family, facts)


def _languages(family: Family, facts: TokenFacts) -> dict[str, Any]:
    codes, source, target = facts.language_codes, facts.source_language, facts.target_language
    if family.model_type == "marian":
        # Marian names the language it is to write in front of the source.
        if codes and target is None:
            raise ConvertError(_ask(codes, "the target language"))
        return {"source_prefix": (_code(codes, target),)} if codes and target is not None else {}
    forced = facts.stated("forced_bos_token_id")
    if not codes:
        return {"target_prefix": tuple(forced[:1])}
    if source is None or (target is None and not forced):
        raise ConvertError(_ask(codes, "the source and the target language"))
    written = forced[0] if target is None else _code(codes, target)
    return {"source_prefix": (_code(codes, source),), "target_prefix": (written,)}


def _code(codes: Mapping[str, int], name: str) -> int:
    found = codes.get(name.strip("_<>"), codes.get(name))
    if found is None:
        raise ConvertError(f"there is no language {name!r}; {_some(codes)}")
    return found


def _ask(codes: Mapping[str, int], what: str) -> str:
    return f"this model knows many languages: name {what} (--from, --to); {_some(codes)}"


def _some(codes: Mapping[str, int]) -> str:
    shown = ", ".join(list(codes)[:12])
    return f"it has {shown}" + (f" and {len(codes) - 12} more" if len(codes) > 12 else "")


def _listed(value: int | None) -> list[int]:
    return [] if value is None else [value]
