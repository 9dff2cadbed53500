"""A GGUF file's tokenizer as a ``tokenizers`` pipeline. Called in the limited child only.

Two kinds are in use for the architectures that are imported here. ``gpt2`` is byte-level BPE with its
merges written out; the file names the rule that cuts text into words (``tokenizer.ggml.pre``), and the
rules themselves are common knowledge. ``llama`` is SentencePiece's BPE, whose merges follow from scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
PREFIX = "tokenizer.ggml."
SPACE = "\u2581"  # what SentencePiece writes for a space

_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _LETTERS + r"|\p{N}{1,3}" + _REST
_QWEN2 = _LETTERS + r"|\p{N}" + _REST

WORD_RULES: dict[str, str] = {
    "gpt-2": "gpt2", "gpt2": "gpt2", "phi-2": "gpt2", "olmo": "gpt2", "mpt": "gpt2",
    "smollm": "digits", "starcoder": "digits", "refact": "digits", "codeshell": "digits",
    "llama-bpe": "llama3", "llama3": "llama3", "llama-v3": "llama3", "smaug-bpe": "llama3",
    "qwen2": "qwen2", "deepseek-r1-qwen": "qwen2",
}  # fmt: skip


def build_tokenizer(metadata: Mapping[str, Any]) -> Tokenizer:
    """The pipeline; no token is added at a text's ends. Raises ValueError with a phrase."""
    model = metadata.get(PREFIX + "model")
    tokens = _list_of(metadata, "tokens", str)
    if len(set(tokens)) < len(tokens):
        raise ValueError("holds the same token twice (tokenizer.ggml.tokens)")
    kinds = _list_of(metadata, "token_type", int, [NORMAL] * len(tokens))
    if len(kinds) != len(tokens):
        raise ValueError(
            f"has {len(tokens):,} tokens and {len(kinds):,} token types (tokenizer.ggml.token_type)"
        )
    if model == "gpt2":
        tokenizer = _byte_level(metadata, tokens)
    elif model == "llama":
        tokenizer = _sentencepiece(metadata, tokens)
    else:
        raise ValueError(
            f"has a tokenizer of kind {model!r} (tokenizer.ggml.model); only gpt2 and llama can be read"
        )
    marked = [
        AddedToken(token, special=kind != USER_DEFINED, normalized=False)
        for token, kind in zip(tokens, kinds, strict=True)
        if kind in (CONTROL, USER_DEFINED) or (kind == UNKNOWN and model == "llama")
    ]
    if any(not token.content for token in marked):
        raise ValueError("has a special token without a text (tokenizer.ggml.tokens)")
    tokenizer.add_tokens(marked)
    return tokenizer


def _byte_level(metadata: Mapping[str, Any], tokens: Sequence[str]) -> Tokenizer:
    name = metadata.get(PREFIX + "pre")
    if name is None:
        raise ValueError("does not say how it cuts text into words (tokenizer.ggml.pre); convert it anew")
    rule = WORD_RULES.get(str(name))
    if rule is None:
        raise ValueError(
            f"cuts text into words as {name!r} does (tokenizer.ggml.pre); only "
            f"{', '.join(WORD_RULES)} can be read"
        )
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = [_pair(merge, vocabulary) for merge in _list_of(metadata, "merges", str)]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=rule == "llama3"))
    if rule == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    spaced = metadata.get(PREFIX + "add_space_prefix", False) is True
    tokenizer.pre_tokenizer = _word_rule(rule, spaced)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _word_rule(rule: str, spaced: bool) -> Any:
    if rule == "gpt2":
        return pre_tokenizers.ByteLevel(add_prefix_space=spaced, use_regex=True)
    if rule == "digits":
        words = pre_tokenizers.ByteLevel(add_prefix_space=spaced, use_regex=True)
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    pattern = Regex(_LLAMA3 if rule == "llama3" else _QWEN2)
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=spaced, use_regex=False),
        ]
    )


def _pair(merge: str, vocabulary: Mapping[str, int]) -> tuple[str, str]:
    left, space, right = merge.partition(" ")
    if not space or left + right not in vocabulary or left not in vocabulary or right not in vocabulary:
        raise ValueError(f"has the merge {merge!r} of tokens it does not have (tokenizer.ggml.merges)")
    return left, right


def _sentencepiece(metadata: Mapping[str, Any], tokens: Sequence[str]) -> Tokenizer:
    scores = _list_of(metadata, "scores", float)
    if len(scores) != len(tokens):
        raise ValueError(f"has {len(tokens):,} tokens and {len(scores):,} scores (tokenizer.ggml.scores)")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    # A piece may be put together in several ways. All are allowed, with the priority of the whole.
    merges = [
        (-scores[index], vocabulary[token[:cut]], vocabulary[token[cut:]], token[:cut], token[cut:])
        for token, index in vocabulary.items()
        for cut in range(1, len(token))
        if token[:cut] in vocabulary and token[cut:] in vocabulary
    ]
    merges.sort()
    unknown = metadata.get(PREFIX + "unknown_token_id", 0)
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=[(left, right) for *_, left, right in merges],
            unk_token=tokens[unknown] if isinstance(unknown, int) and 0 <= unknown < len(tokens) else None,
            fuse_unk=True,
            byte_fallback="<0x00>" in vocabulary,
        )
    )
    spaced = metadata.get(PREFIX + "add_space_prefix", True) is not False
    steps: list[Any] = [normalizers.Prepend(SPACE)] if spaced else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    undone: list[Any] = [decoders.Strip(" ", 1, 0)] if spaced else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *undone]
    )
    return tokenizer


def _list_of(
    metadata: Mapping[str, Any], name: str, kind: type, default: list[Any] | None = None
) -> list[Any]:
    found = metadata.get(PREFIX + name, default)
    if not isinstance(found, list) or not all(isinstance(item, kind) for item in found):
        problem = "is missing" if found is None else f"is no array of {kind.__name__}"
        raise ValueError(f"cannot be used: metadata key {PREFIX + name} {problem}")
    return found
