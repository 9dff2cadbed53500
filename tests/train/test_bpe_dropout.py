"""Words cut anew: the same text comes back, merges are left out as often as asked, seeds repeat."""

from __future__ import annotations

import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import SENTENCES
from tests.core.test_tokenizer import TEXTS
from tfm.core.tokenizer import Tokenizer
from tfm.train.bpe_dropout import VARIANTS, BpeDropout, WordNumbers

TOKENIZER = Tokenizer.train(SENTENCES, vocab_size=400)


def cut(texts: list[str], probability: float, seed: int = 1, limit: int = 10_000) -> list[list[int]]:
    numbers = WordNumbers()
    rows = [np.array(numbers.of(row), dtype=np.uint32) for row in TOKENIZER.encode_words(texts)]
    words = [np.array(word, dtype=np.uint16) for word in numbers.words]
    plain = [np.array(ids, dtype=np.uint16) for ids in TOKENIZER.encode_batch(texts)]
    torch.manual_seed(seed)
    return [ids.tolist() for ids in BpeDropout(TOKENIZER, words, probability, seed).rows(rows, plain, limit)]


@given(TEXTS.filter(bool), st.floats(0.0, 0.99), st.integers(0, 9))
@settings(deadline=None)
def test_however_it_is_cut_the_same_text_comes_back(text: str, probability: float, seed: int) -> None:
    (ids,) = cut([text], probability, seed)
    assert TOKENIZER.decode(ids) == text


@given(st.lists(TEXTS.filter(bool), min_size=1, max_size=4))
@settings(deadline=None)
def test_without_dropout_words_are_cut_as_ever(texts: list[str]) -> None:
    assert cut(texts, 0.0) == TOKENIZER.encode_batch(texts)


def test_a_merge_is_left_out_as_often_as_asked() -> None:
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    words = [np.array([2], dtype=np.uint16)]
    n_split = n_all = 0
    for seed in range(400):
        dropout = BpeDropout(Tokenizer(backend), words, 0.3, seed)
        numbers = [np.zeros(VARIANTS, dtype=np.uint32)]
        (ids,) = dropout.rows(numbers, numbers, 10_000)
        n_split += int((ids == 0).sum())
        n_all += int((ids != 1).sum())
    assert n_all == 400 * VARIANTS
    # A choice among 16 ways that were drawn varies more than 6,400 draws would; 4 deviations of that.
    assert abs(n_split / n_all - 0.3) < 4 * (2 * 0.3 * 0.7 / n_all) ** 0.5


def test_the_same_seed_cuts_the_same_and_another_does_not() -> None:
    assert cut(SENTENCES, 0.3) == cut(SENTENCES, 0.3) != cut(SENTENCES, 0.3, seed=2)
    assert sum(map(len, cut(SENTENCES, 0.1))) < sum(map(len, cut(SENTENCES, 0.6)))


def test_a_row_that_would_be_too_long_is_left_as_it_was() -> None:
    longest = max(map(len, TOKENIZER.encode_batch(SENTENCES)))
    assert max(map(len, cut(SENTENCES, 0.9))) > longest
    assert max(map(len, cut(SENTENCES, 0.9, limit=longest))) == longest


def test_another_kind_of_tokenizer_is_refused() -> None:
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))
    with pytest.raises(ValueError, match=r"data\.bpe_dropout needs a byte-level BPE tokenizer"):
        BpeDropout(Tokenizer(backend), [], 0.1, 1)
