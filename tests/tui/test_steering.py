"""What is typed to steer a run; which words of a sample are new."""

from __future__ import annotations

from typing import Any

import pytest

from tfm.tui.steering import parse_bookmark, parse_changes, parse_prompts, parse_rate
from tfm.tui.widgets.cells import width
from tfm.tui.word_diff import word_diff, wrapped


@pytest.mark.parametrize(
    ("text", "args"),
    [
        ("1e-3 for 500", {"value": 1e-3, "steps": 500}),
        (" 0.002  for 1,000 steps ", {"value": 0.002, "steps": 1000}),
        ("1e-3 500", {"value": 1e-3, "steps": 500}),
        ("3e-4", {"value": 3e-4}),
        ("0", {"value": 0.0}),
        ("schedule", {}),
    ],
)
def test_rates_as_people_type_them(text: str, args: dict[str, Any]) -> None:
    assert parse_rate(text) == args


@pytest.mark.parametrize(
    "text", ["", "fast", "1e-3 for", "1e-3 for ever", "2", "-1", "nan", "1e-3 for 0", "1 2 3"]
)
def test_what_is_no_rate_is_one_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        parse_rate(text)


def test_bookmarks_changes_and_prompts() -> None:
    assert parse_bookmark(" good-1 ") == "good-1"
    for name in ("", "12", "a/b", "-a", "a b"):
        with pytest.raises(ValueError, match="such as good-1"):
            parse_bookmark(name)
    assert parse_changes("optim.learning_rate=1e-3  loop.max_steps=9000") == {
        "optim.learning_rate": "1e-3",
        "loop.max_steps": "9000",
    }
    assert parse_changes("  ") == {}
    for text in ("learning_rate=1", "optim.learning_rate", "optim.learning_rate="):
        with pytest.raises(ValueError, match=r"section\.key=value"):
            parse_changes(text)
    assert parse_prompts("A dog.\n\n  Two men. \n") == ["A dog.", "Two men."]


@pytest.mark.parametrize(
    ("before", "now", "shown"),
    [
        (None, "ein hund", "ein hund"),
        ("ein hund", "ein hund", "ein hund"),
        ("zwei hunde laufen durch", "zwei hunde rennen durch", "zwei hunde *rennen* (was: laufen) durch"),
        ("ein hund", "ein brauner hund", "ein *brauner* hund"),
        ("ein brauner hund", "ein hund", "ein (gone: brauner) hund"),
        ("ein hund rennt", "ein hund", "ein hund (gone: rennt)"),
        ("", "ein hund", "*ein hund*"),
        ("男の人が立つ", "男の子が立つ", "男の*子* (was: 人) が立つ"),
    ],
)
def test_what_is_new_is_marked_and_what_it_was_stands_beside_it(
    before: str | None, now: str, shown: str
) -> None:
    row = word_diff(before, now)
    assert "".join(f"*{text}*" if style == "mark" else text for text, style in row) == shown


def test_a_marked_text_wraps_between_words_and_loses_nothing() -> None:
    row = word_diff("ein roter hund rennt", "ein blauer hund rennt schnell über ein grünes feld")
    rows = wrapped(row, 12)
    assert all(width(part) <= 12 for part in rows)
    whole = "".join(text for text, _ in row).split()
    assert " ".join("".join(text for text, _ in part) for part in rows).split() == whole
