"""Tokenizer: text to token ids and back, and back piece by piece while a model writes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<mask>")


class Tokenizer:
    """A ``tokenizers`` pipeline with the few methods that the rest of the house needs.

    Text is data: a sentence that happens to hold ``</s>`` is encoded as those four characters, not
    as the special token, unless ``specials=True`` says that the text was made by a template.
    """

    def __init__(
        self, backend: tokenizers.Tokenizer, n_known: int | None = None, unk_id: int | None = None
    ) -> None:
        self._backend = backend
        self._n_known, self._unk_id = n_known, unk_id
        self._backend.no_padding()
        self._backend.no_truncation()
        self._special = {
            token.content: index
            for index, token in backend.get_added_tokens_decoder().items()
            if token.special
        }

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, min_frequency: int = 2) -> Tokenizer:
        """Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019): every text can be encoded.

        A word at the start of a text is treated as if a space stood before it, so that it is the
        same token as inside a sentence; decoding takes that space away again.
        """
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        backend.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=min_frequency,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        return cls(backend)

    @classmethod
    def load(cls, path: Path | str) -> Tokenizer:
        """Raises ValueError naming the file where it is no tokenizer."""
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"no tokenizer at {path}") from None
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise ValueError(f"{path} is not a readable tokenizer.json: {error}") from None

    @classmethod
    def from_json(cls, text: str) -> Tokenizer:
        """Raises ValueError where the text is no tokenizer."""
        with _errors_as_values():
            return cls(tokenizers.Tokenizer.from_str(text))

    def limited(self, n_known: int, unk_id: int) -> Tokenizer:
        """The same pipeline for a model that knows the first ids only: all others become ``unk_id``.

        Marian's pieces come from a model of their own, and some have no place in its vocabulary.
        """
        return Tokenizer(self._backend, n_known, unk_id)

    def save(self, path: Path | str) -> None:
        Path(path).write_text(self.to_json(), encoding="utf-8")

    def to_json(self) -> str:
        return self._backend.to_str(pretty=False)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the whole pipeline, in hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def vocab_size(self) -> int:
        size: int = self._backend.get_vocab_size(with_added_tokens=True)
        return size if self._n_known is None else min(size, self._n_known)

    @property
    def special_ids(self) -> dict[str, int]:
        """The ids of the tokens that our own models are built around, by ModelConfig's names."""
        names = ("pad_id", "bos_id", "eos_id", "mask_id")
        found = {
            name: self._backend.token_to_id(token) for name, token in zip(names, SPECIAL_TOKENS, strict=True)
        }
        return {name: index for name, index in found.items() if index is not None}

    @property
    def specials(self) -> dict[str, int]:
        """Every special token's id by its name."""
        return dict(self._special)

    def token_to_id(self, token: str) -> int | None:
        index: int | None = self._backend.token_to_id(token)
        return index

    def encode(self, text: str, specials: bool = False) -> list[int]:
        """Ids of the text; none are added at its ends."""
        return self.encode_batch([text], specials)[0]

    def encode_batch(self, texts: Sequence[str], specials: bool = False) -> list[list[int]]:
        self._backend.encode_special_tokens = not specials
        with _errors_as_values("the tokenizer cannot encode this text: "):
            encoded = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        n_known, unk_id = self._n_known, self._unk_id
        if n_known is None or unk_id is None:
            return [encoding.ids for encoding in encoded]
        return [[index if index < n_known else unk_id for index in encoding.ids] for encoding in encoded]

    def encode_words(self, texts: Sequence[str]) -> list[list[tuple[int, ...]]]:
        """Of each text, the words that it is cut into before any merge, each as its ids."""
        self._backend.encode_special_tokens = True
        with _errors_as_values("the tokenizer cannot encode this text: "):
            encoded = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return [
            [tuple(index for index, _ in word) for _, word in groupby(tokens, itemgetter(1))]
            for tokens in (zip(encoding.ids, encoding.word_ids, strict=True) for encoding in encoded)
        ]

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Text of the ids; bytes that form no character become U+FFFD."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=skip_special)
        return text

    def piece(self, token_id: int) -> str:
        """One token as a person may read it: its text with the space before it, or its name."""
        token = self._backend.id_to_token(token_id)
        if token is None:
            return f"<{token_id}>"
        if token in self._special:
            return str(token)
        # Decoded after a neighbour, so that a leading space is not taken for the start of a text.
        anchor = self._anchor()
        return self.decode([*anchor, token_id])[len(self.decode(anchor)) :] or str(token)

    def is_special(self, token_id: int) -> bool:
        return self._backend.id_to_token(token_id) in self._special

    def _anchor(self) -> list[int]:
        return self.encode("a")[:1]


@contextmanager
def _errors_as_values(before: str = "") -> Iterator[None]:
    """The library raises bare Exceptions, and its panics are not even those; both become ValueErrors."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = str(error).splitlines() or [type(error).__name__]
        raise ValueError(before + reason[0]) from None


class StreamingDetokenizer:
    """Turns ids into text as they come; the pieces joined are exactly ``decode`` of all ids.

    Bytes that do not form a character yet are held back. Only a short window is decoded each
    time: text before the last whole character cannot change any more.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._shown = ""  # text of the window that was given out already

    def push(self, token_id: int) -> str:
        """The text that became final with this token; empty while a character is incomplete."""
        self._window.append(token_id)
        text = self._tokenizer.decode(self._window)
        if text.endswith("\ufffd"):
            return ""
        piece = text[len(self._shown) :]
        self._shown = text
        self._slide(text)
        return piece

    def flush(self) -> str:
        """What was held back, incomplete characters as U+FFFD; the stream ends here."""
        rest = self._tokenizer.decode(self._window)[len(self._shown) :]
        self._window, self._shown = [], ""
        return rest

    def _slide(self, text: str) -> None:
        # The window keeps one visible token before the next, for decoders that treat the first
        # token of a text differently.
        if len(self._window) < 16:
            return
        kept = self._window[-4:]
        shown = self._tokenizer.decode(kept)
        if shown and text.endswith(shown) and "\ufffd" not in shown:
            self._window, self._shown = kept, shown
