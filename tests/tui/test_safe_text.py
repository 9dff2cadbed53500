"""Whatever text comes, no terminal obeys it and nothing in it is markup."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from rich.segment import Segment
from textual.color import Color

from tfm.tui.safe_text import ControlFilter, plain, safe_text

HOSTILE = [
    "\x1b]52;c;aGFja2Vk\x07",  # writes the clipboard
    "\x1bc",  # resets the terminal
    "\x1b]0;title\x1b\\",
    "\x9b31m",  # a C1 control sequence
    "\x90q\x9c",  # a device control string
    "\u202eevil\u202c",  # reads backwards
    "\u2066a\u2069",
    "a\u200bb\u2060c\ufeff",
    "\U000e0041\U000e007f",  # tag characters
    "\ud800",
    "line\u2028break\u2029",
    "\x00\x07\x08\x0c\x7f",
]
ALLOWED_FORMAT = {"\u200d"}


def harmless(text: str) -> bool:
    return not any(
        unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in ALLOWED_FORMAT for c in text
    )


def test_hostile_strings_become_visible() -> None:
    for text in HOSTILE:
        assert harmless(safe_text(text)), repr(text)
        assert safe_text(text) != ""


@given(st.text(alphabet=st.characters(codec=None)))
def test_no_control_survives(text: str) -> None:
    # format characters of scripts (Arabic number signs and the like) are ordinary text
    kept = safe_text(text)
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in kept)
    assert "\u202e" not in kept and "\ufeff" not in kept


@given(st.text(alphabet=st.characters(codec=None)))
def test_it_is_idempotent_and_leaves_plain_text_alone(text: str) -> None:
    once = safe_text(text, newlines=True)
    assert safe_text(once, newlines=True) == once
    printable = "".join(c for c in text if c.isprintable() and c != "\u034f")  # which nobody sees
    assert safe_text(printable) == printable


def test_newlines_stay_only_where_asked() -> None:
    assert safe_text("a\nb") == "a␊b"
    assert safe_text("a\r\nb\tc", newlines=True) == "a\nb    c"


def test_emoji_and_joined_scripts_are_kept() -> None:
    for text in ("👩‍👩‍👧", "☀️", "हिन्दी", "한국어", "e\u0301"):
        assert safe_text(text) == text


def test_plain_content_holds_no_markup() -> None:
    for text in ("[@click=app.quit]x[/]", "[bold]b[/bold]", "[link=file:///etc]y[/link]", "[/"):
        content = plain(text)
        assert content.plain == text
        assert content.spans == []


@given(st.lists(st.text(alphabet=st.characters(codec=None)), max_size=4))
def test_the_filter_deletes_what_safe_text_would_replace(texts: list[str]) -> None:
    filtered = ControlFilter().apply([Segment(text) for text in texts], Color(0, 0, 0))
    for before, after in zip(texts, filtered, strict=True):
        assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in after.text)
        assert after.text == "".join(c for c in before if safe_text(c) == c)
