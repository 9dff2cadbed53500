"""SentencePiece models as ``tokenizers`` pipelines, through a vocabulary of the checkpoint's own.

Marian and M2M100 cut a text with SentencePiece and look the pieces up in ``vocab.json``: a piece that
is not there is the unknown token, and the vocabulary holds pieces that the SentencePiece model does not
know (Marian's target side).

Text is cut as SentencePiece cuts it, with these exceptions: a letter that is normalised into several,
followed by a combining mark (``…`` and an accent), loses the mark; ties between cuts of a run of one
letter may fall otherwise; user-defined pieces compete by their scores instead of always winning; the
name of a special token is data, never the token. Spaces at the end of a decoded text stay.

The file is a protocol buffer (sentencepiece_model.proto); the few fields needed are read here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

SPACE = "\u2581"
# Put in front of a piece that the text may not be cut into; decoding takes it away again.
HIDDEN = "\ue000"
_INSTEAD = "\ue001"  # what becomes of the mark where a text holds it: as unknown as the mark itself

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
UNIGRAM, BPE = 1, 2

# The languages of M2M100 and of its WMT 2021 descendants, in the order of their tokens' ids, which the
# folders do not always tell.
M2M100_LANGUAGES = """
    af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga gd gl gu ha he hi hr ht
    hu hy id ig ilo is it ja jv ka kk km kn ko lb lg ln lo lt lv mg mk ml mn mr ms my ne nl no ns oc or pa pl
    ps pt ro ru sd si sk sl so sq sr ss su sv sw ta th tl tn tr uk ur uz vi wo xh yi yo zh zu
"""
WMT21_LANGUAGES = "en ha is ja cs ru zh de"


@dataclass(frozen=True)
class Model:
    """The parts of a SentencePiece model that decide how a text is cut."""

    pieces: tuple[tuple[str, float, int], ...]  # text, score, kind
    kind: int
    charsmap: bytes
    dummy_prefix: bool
    collapse: bool  # runs of spaces, and spaces at both ends

    @property
    def normal(self) -> dict[str, float]:
        """Pieces that a text can be cut into, with their scores."""
        return {piece: score for piece, score, kind in self.pieces if kind in (NORMAL, USER_DEFINED)}


def read_model(path: Path) -> Model:
    """Raises ValueError naming the file where it is no SentencePiece model."""
    try:
        model = _model(path.read_bytes())
    except (ValueError, IndexError, struct.error) as error:
        raise ValueError(f"{path.name} is no SentencePiece model: {error}") from None
    if model.kind not in (UNIGRAM, BPE):
        raise ValueError(f"{path.name} is neither a unigram nor a BPE model")
    if not model.normal:
        raise ValueError(f"{path.name} holds no pieces")
    if any(kind == BYTE for _, _, kind in model.pieces):
        raise ValueError(f"{path.name} falls back to bytes, which is not supported here")
    return model


def marian(path: Path, vocabulary: Mapping[str, int]) -> tokenizers.Tokenizer:
    """Ids are those of ``vocabulary``; ids behind it are pieces that it does not hold."""
    model = read_model(path)
    if model.kind != UNIGRAM:
        raise ValueError(f"{path.name} is no unigram model")
    specials = [token for token in ("<unk>", "</s>", "<pad>") if token in vocabulary]
    if "<unk>" not in specials or "</s>" not in specials:
        raise ValueError("vocab.json has no <unk> or no </s>")
    codes = [token for token in vocabulary if token.startswith(">>") and token.endswith("<<")]
    scores = model.normal
    lowest = min(scores.values())
    letters = set("".join(scores))
    # SentencePiece gives out a run of letters that it does not know as one piece, which the vocabulary
    # may know from the other side's model.
    foreign = {token for token in vocabulary if letters.isdisjoint(token)}
    entries = []
    for token in sorted(vocabulary, key=vocabulary.__getitem__):
        known = token in specials or token in codes or token in foreign or token.startswith(HIDDEN)
        if known or token in scores:
            entries.append((token, lowest if known else scores[token]))
        else:
            entries.append((HIDDEN + token, lowest))
    entries += [(piece, score) for piece, score in scores.items() if piece not in vocabulary]
    backend = tokenizers.Tokenizer(models.Unigram(entries, unk_id=vocabulary["<unk>"]))
    backend.normalizer = normalizers.Sequence([_normalizer(model), _join_unknown(letters, foreign)])
    # A text that holds the name of a special token is no special token: cut the name after its "<".
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("<(?=/s>|unk>|pad>)|>(?=>)"), "merged_with_previous")
    backend.decoder = _decoder()
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in specials])
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in codes])
    return backend


def language_tokens(code_set: object) -> tuple[str, ...]:
    """The tokens of M2M100's languages, by what tokenizer_config.json calls ``language_codes``."""
    languages = WMT21_LANGUAGES if code_set == "wmt21" else M2M100_LANGUAGES
    return tuple(f"__{language}__" for language in languages.split())


def m2m100(path: Path, vocabulary: Mapping[str, int], languages: Sequence[str]) -> tokenizers.Tokenizer:
    """As :func:`marian`, for a BPE model; the languages' tokens are in the vocabulary."""
    model = read_model(path)
    if model.kind != BPE:
        raise ValueError(f"{path.name} is no BPE model")
    specials = [token for token in ("<s>", "<pad>", "</s>", "<unk>") if token in vocabulary]
    if "<unk>" not in specials or "</s>" not in specials:
        raise ValueError("vocab.json has no <unk> or no </s>")
    ids = dict(vocabulary)
    scores = model.normal
    for piece in scores:
        ids.setdefault(piece, len(ids))
    merges = []
    # SentencePiece merges the pair that makes the piece of the highest score.
    for piece in sorted(scores, key=lambda piece: -scores[piece]):
        for cut in range(1, len(piece)):
            if piece[:cut] in scores and piece[cut:] in scores:
                merges.append((piece[:cut], piece[cut:]))
    backend = tokenizers.Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Sequence(
        [_normalizer(model), _join_unknown(set("".join(scores)), set())]
    )
    backend.decoder = _decoder()
    backend.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in (*specials, *languages)]
    )
    return backend


def _normalizer(model: Model) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = [normalizers.Replace(HIDDEN, _INSTEAD)]
    if model.charsmap:
        steps.append(normalizers.Precompiled(model.charsmap))
    if model.collapse:
        steps.append(normalizers.Replace(Regex("^ +| +$"), ""))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    steps.append(normalizers.Replace(" ", SPACE))
    if model.dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    return normalizers.Sequence(steps)


def _join_unknown(letters: set[str], foreign: set[str]) -> normalizers.Normalizer:
    """Runs of letters that are not the model's become one unknown letter, but for those in ``foreign``."""
    unknown = f"[^{''.join(map(_escaped, sorted(letters)))}]"
    runs = sorted(token for token in foreign if len(token) > 1)
    spared = f"(?!(?:{'|'.join(''.join(map(_escaped, run)) for run in runs)})(?!{unknown}))" if runs else ""
    return normalizers.Replace(Regex(f"(?<!{unknown}){spared}{unknown}{{2,}}"), _INSTEAD)


def _escaped(letter: str) -> str:
    return f"\\x{{{ord(letter):x}}}"


def _decoder() -> decoders.Decoder:
    return decoders.Sequence(
        [
            decoders.Replace(HIDDEN, ""),
            decoders.Replace(SPACE, " "),
            decoders.Fuse(),
            decoders.Strip(" ", 255, 0),
        ]
    )


# --------------------------------------------------------------------------- protocol buffers
def _model(data: bytes) -> Model:
    pieces: list[tuple[str, float, int]] = []
    kind, charsmap, dummy_prefix, collapse = UNIGRAM, b"", True, True
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            pieces.append(_piece(value))
        elif number == 2 and isinstance(value, bytes):
            kind = next((int(v) for n, v in _fields(value) if n == 3 and isinstance(v, int)), UNIGRAM)
        elif number == 3 and isinstance(value, bytes):
            for inner, setting in _fields(value):
                if inner == 2 and isinstance(setting, bytes):
                    charsmap = setting
                elif inner == 3:
                    dummy_prefix = bool(setting)
                elif inner == 4:
                    collapse = bool(setting)
    return Model(tuple(pieces), kind, charsmap, dummy_prefix, collapse)


def _piece(data: bytes) -> tuple[str, float, int]:
    text, score, kind = "", 0.0, NORMAL
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            text = value.decode("utf-8")
        elif number == 2 and isinstance(value, bytes):
            (score,) = struct.unpack("<f", value)
        elif number == 3 and isinstance(value, int):
            kind = value
    return text, score, kind


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a message: integers for varints, bytes for everything else."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at + size > len(data):
            raise ValueError(f"cut short at byte {at}")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError(f"a number of more than 64 bits at byte {at}")
