"""What panics inside of the tokenizers library is a ValueError here, at loading and at use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SENTENCES
from tfm.core.tokenizer import Tokenizer

SOUND = json.loads(Tokenizer.train(SENTENCES, vocab_size=300).to_json())


def text_with(**parts: Any) -> str:
    return json.dumps({**SOUND, **parts})


def test_a_panic_while_loading_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(text_with(normalizer={"type": "Precompiled", "precompiled_charsmap": ""}))
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a readable tokenizer\.json"):
        Tokenizer.load(path)


@pytest.mark.parametrize(
    "parts",
    [
        {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
        {"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "x"}},
        {"model": {"type": "Unigram", "unk_id": None, "vocab": [["a", 0.0]]}},
    ],
)
def test_a_panic_while_encoding(parts: dict[str, Any]) -> None:
    tokenizer = Tokenizer.from_json(text_with(**parts))
    with pytest.raises(ValueError, match="the tokenizer cannot encode this text"):
        tokenizer.encode("some text")
