"""Foreign tokenizers as one ``tokenizers`` pipeline. Runs in a limited child: nothing here is trusted.

    tokenizer.json                          taken as it is
    vocab.json + merges.txt                 byte-level BPE (GPT-2)
    vocab.txt                               WordPiece (BERT)
    source.spm + target.spm + vocab.json    Marian
    sentencepiece.bpe.model + vocab.json    M2M100

This module is imported by the child alone and by tests; it imports no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from tfm.core.convert import sentencepiece_files

FILES = {
    "tokenizer.json": ("tokenizer.json",),
    "marian": ("source.spm", "target.spm", "vocab.json"),
    "m2m100": ("sentencepiece.bpe.model", "vocab.json"),
    "gpt2": ("vocab.json", "merges.txt"),
    "bert": ("vocab.txt",),
}
MAX_FILE = 256 << 20  # bytes
# Texts that reach the corners of a pipeline: a panic is to happen here and not in front of a user.
PROBES = (
    "a",
    "Hello, world! 1234",
    " two  spaces\n\ttab ",
    "äöü ß ſ ﬁ İ",
    "日本語 🙂🏽 e\u0301\u0302",
    "<s> </s>\x00\ufffd",
    "",
)
N_DECODED = 2000


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to read and how. ``kind`` is one of ``kind_of``'s."""

    folder: str
    kind: str
    options: dict[str, Any] = {}  # tokenizer_config.json
    size: int = 0  # rows of the model's embedding; ids behind the vocabulary but before this stay unused


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """A tokenizer that survived, and what it does. ``target`` is the one for target texts, if it differs."""

    text: str
    target: str | None
    vocab_size: int
    largest_id: int
    prefix: tuple[int, ...]  # what it puts around a single text
    suffix: tuple[int, ...]
    specials: dict[str, int]
    n_known: int | None  # ids from this one on have no place in the model's vocabulary


def kind_of(folder: Path) -> str | None:
    """Which of the known kinds of tokenizer lies in a folder, if any."""
    found = (kind for kind, files in FILES.items() if all((folder / file).is_file() for file in files))
    return next(found, None)


def read(raw: dict[str, Any]) -> dict[str, Any]:
    """The child's function: a Request in, a Pipeline out, both as JSON-able values.

    Raises:
        ValueError: a phrase that fits behind the name of the folder's tokenizer.
    """
    request = msgspec.convert(raw, Request)
    folder = Path(request.folder)
    for file in (folder / name for name in FILES[request.kind]):
        if file.stat().st_size > MAX_FILE:
            raise ValueError(f"{file.name} is larger than {MAX_FILE:,} bytes")
    n_known, target = None, None
    if request.kind == "tokenizer.json":
        backend = _parse((folder / "tokenizer.json").read_text(encoding="utf-8"))
    elif request.kind == "marian":
        vocabulary = _vocabulary(folder / "vocab.json")
        n_known = max(len(vocabulary), request.size)
        vocabulary |= _unused(len(vocabulary), n_known)
        backend = sentencepiece_files.marian(folder / "source.spm", vocabulary)
        target = sentencepiece_files.marian(folder / "target.spm", vocabulary)
    elif request.kind == "m2m100":
        vocabulary = _vocabulary(folder / "vocab.json")
        languages = sentencepiece_files.language_tokens(request.options.get("language_codes"))
        vocabulary |= {token: len(vocabulary) + i for i, token in enumerate(languages)}
        n_known = max(len(vocabulary), request.size)
        vocabulary |= _unused(len(vocabulary), n_known)
        backend = sentencepiece_files.m2m100(folder / "sentencepiece.bpe.model", vocabulary, languages)
    elif request.kind == "gpt2":
        backend = _byte_level(folder)
    else:
        backend = _word_piece(folder / "vocab.txt", request.options)
    for pipeline in (backend, target):
        if pipeline is not None:
            _probe(pipeline)
    described: dict[str, Any] = msgspec.to_builtins(_describe(backend, target, n_known))
    return described


def check(path: str) -> int:
    """The child's function for a checkpoint's own tokenizer.json: how many ids it has.

    Raises:
        ValueError: a phrase that fits behind the file's name.
    """
    file = Path(path)
    if file.stat().st_size > MAX_FILE:
        raise ValueError(f"is larger than {MAX_FILE:,} bytes")
    backend = _parse(file.read_text(encoding="utf-8"))
    _probe(backend)
    return int(backend.get_vocab_size(with_added_tokens=True))


def _parse(text: str) -> tokenizers.Tokenizer:
    try:
        backend = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception for every parse error
        raise ValueError(f"is no tokenizer: {str(error).splitlines()[0][:200]}") from None
    backend.no_padding()
    backend.no_truncation()
    return backend


def _vocabulary(path: Path) -> dict[str, int]:
    try:
        vocabulary = msgspec.json.decode(path.read_bytes(), type=dict[str, int])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name}: {error}") from None
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise ValueError(f"{path.name}: the ids are not 0 to {len(vocabulary) - 1}, each once")
    return vocabulary


def _unused(begin: int, end: int) -> dict[str, int]:
    """Names that no text holds, for rows of the embedding that stand for nothing."""
    return {f"{sentencepiece_files.HIDDEN}{index}": index for index in range(begin, end)}


def _byte_level(folder: Path) -> tokenizers.Tokenizer:
    vocabulary = _vocabulary(folder / "vocab.json")
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("merges.txt: a line does not hold two pieces")
    merges = [(left, right) for left, right in pairs]
    try:
        backend = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    except Exception as error:
        raise ValueError(f"merges.txt does not fit vocab.json: {error}") from None
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([token for token in ("<|endoftext|>",) if token in vocabulary])
    return backend


def _word_piece(path: Path, options: dict[str, Any]) -> tokenizers.Tokenizer:
    words = path.read_text(encoding="utf-8").splitlines()
    vocabulary = {word: index for index, word in enumerate(words)}
    specials = [word for word in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if word in vocabulary]
    if not {"[UNK]", "[CLS]", "[SEP]"} <= set(specials):
        raise ValueError("vocab.txt has no [UNK], [CLS] or [SEP]")
    lowercase = bool(options.get("do_lower_case", True))
    accents = options.get("strip_accents")
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(
        lowercase=lowercase,
        handle_chinese_chars=bool(options.get("tokenize_chinese_chars", True)),
        strip_accents=accents if isinstance(accents, bool) else None,
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(word, vocabulary[word]) for word in ("[CLS]", "[SEP]")],
    )
    backend.add_special_tokens(specials)
    return backend


def _probe(backend: tokenizers.Tokenizer) -> None:
    """Do what a user would do with it, so that what can go wrong goes wrong here."""
    size = backend.get_vocab_size(with_added_tokens=True)
    try:
        for specials in (False, True):
            backend.encode_special_tokens = not specials
            for encoding in backend.encode_batch(list(PROBES), add_special_tokens=specials):
                backend.decode(encoding.ids, skip_special_tokens=not specials)
        for index in range(0, size, max(1, size // N_DECODED)):
            backend.id_to_token(index)
            backend.decode([index], skip_special_tokens=False)
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"cannot encode every text: {str(error).splitlines()[0][:200]}") from None


def _describe(
    backend: tokenizers.Tokenizer, target: tokenizers.Tokenizer | None, n_known: int | None
) -> Pipeline:
    backend.encode_special_tokens = True
    bare = backend.encode("a", add_special_tokens=False).ids
    framed = backend.encode("a", add_special_tokens=True).ids
    begin = next((i for i in range(len(framed) - len(bare) + 1) if framed[i : i + len(bare)] == bare), None)
    if begin is None:
        raise ValueError("its post-processor does more than to put tokens around a text")
    vocabulary = backend.get_vocab(with_added_tokens=True)
    if not vocabulary:
        raise ValueError("its vocabulary is empty")
    specials = {
        token.content: index for index, token in backend.get_added_tokens_decoder().items() if token.special
    }
    return Pipeline(
        text=backend.to_str(),
        target=None if target is None else target.to_str(),
        vocab_size=len(vocabulary),
        largest_id=max(vocabulary.values()),
        prefix=tuple(framed[:begin]),
        suffix=tuple(framed[begin + len(bare) :]),
        specials=specials,
        n_known=n_known,
    )


def framed(text: str, prefix: list[int], suffix: list[int]) -> str:
    """The tokenizer.json ``text``, made to put these tokens around a single text if it does not."""
    backend = tokenizers.Tokenizer.from_str(text)
    bare = backend.encode("a", add_special_tokens=False).ids
    if backend.encode("a").ids == [*prefix, *bare, *suffix]:
        return text
    names = {index: str(backend.id_to_token(index)) for index in (*prefix, *suffix)}
    before, after = [names[index] for index in prefix], [names[index] for index in suffix]
    backend.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[*before, "$A", *after, "$B", *after],
        special_tokens=[(name, index) for index, name in names.items()],
    )
    return str(backend.to_str())
