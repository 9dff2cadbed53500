"""Growing text wraps as the whole text would, and never wider than the row."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from tfm.core.tokenizer import StreamingDetokenizer, Tokenizer
from tfm.tui.widgets.cells import cells_of, changed, fit, graphemes, spread, width
from tfm.tui.widgets.wrap import Paragraph, wrap

WHOLE = [
    *"ab ,ü",
    "界",
    "한",
    "é",
    "e\u0301",
    "👩‍👧",
    "\n",
    "long",
    "🇩🇪",
    "👍🏽",
    "❤️",
    "1️⃣",
    "שלום",
    "مرحبا",
    "ก็",
]
PARTS = [
    "🇩",
    "🏽",
    "\u200d",
    "\ufe0f",
    "\u0301",
    "\u1112",
    "\u1161",
    "\u11ab",
    "\u0915\u093f",
    "\u093f",
    "\ufffd",
]
ALPHABET = st.sampled_from([*WHOLE, *PARTS])  # parts of characters come where a token ends within one
BYTES = Tokenizer.train(["a man in a blue shirt"] * 3, 300)  # every other character comes in single bytes
pieces = st.lists(st.lists(ALPHABET, max_size=4).map("".join), max_size=30)


@given(pieces, st.integers(1, 12))
@example(["aa🇩🇪", "🏽"], 3)  # what comes after a flag does not take it apart
def test_token_by_token_is_all_at_once(tokens: list[str], columns: int) -> None:
    growing = Paragraph(columns)
    for token in tokens:
        growing.append(token)
    assert growing.rows == wrap("".join(tokens), 0, columns)
    for cut in range(len(tokens) + 1):  # some are there already, the others come by and by
        other = Paragraph(columns)
        other.extend(tokens[:cut])
        for token in tokens[cut:]:
            other.append(token)
        assert vars(other) == vars(growing)


@given(pieces, st.integers(2, 12))
def test_rows_hold_every_character_once_and_fit(tokens: list[str], columns: int) -> None:
    text = "".join(tokens)
    rows = wrap(text, 0, columns)
    joined = ""
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        line = text[row.start : row.end]
        assert width(((line.rstrip(" "), ""),)) <= columns
        joined += line
        if after is not None and after.start > row.end:
            assert text[row.end : after.start] == "\n"
            joined += "\n"
    assert joined == text


@given(pieces, st.integers(1, 12))
def test_only_the_last_row_changes(tokens: list[str], columns: int) -> None:
    paragraph = Paragraph(columns)
    for token in tokens:
        before = list(paragraph.rows)
        first = paragraph.append(token)
        assert paragraph.rows[:first] == before[:first]


@pytest.mark.parametrize(
    ("text", "columns", "rows"),
    [
        ("one two three", 7, ["one two ", "three"]),
        ("abcdefghij", 4, ["abcd", "efgh", "ij"]),
        ("中文字", 4, ["中文", "字"]),
        ("ab 中文字", 5, ["ab 中", "文字"]),
        ("e\u0301e\u0301e\u0301", 2, ["e\u0301e\u0301", "e\u0301"]),
        ("a\n\nb", 5, ["a", "", "b"]),
    ],
)
def test_where_rows_break(text: str, columns: int, rows: list[str]) -> None:
    assert [text[row.start : row.end] for row in wrap(text, 0, columns)] == rows


def test_tokens_know_their_row() -> None:
    paragraph = Paragraph(7)
    for token in ("one", " two", " th", "ree"):
        paragraph.append(token)
    assert [paragraph.row_of_token(n) for n in range(4)] == [0, 0, 0, 1]
    assert [paragraph.token_at(n) for n in (0, 2, 3, 8, 12)] == [0, 0, 1, 2, 3]


@given(pieces, pieces)
def test_the_difference_covers_every_cell_that_differs(old: list[str], new: list[str]) -> None:
    before = cells_of(tuple((text, "") for text in "".join(old).split("\n")))
    after = cells_of(tuple((text, "") for text in "".join(new).split("\n")))
    span = changed(before, after)
    blank = (" ", "")
    for x in range(max(len(before), len(after))):
        one = before[x] if x < len(before) else blank
        other = after[x] if x < len(after) else blank
        if one != other:
            assert span is not None and span[0] <= x < span[1]


@given(
    st.lists(st.tuples(ALPHABET.filter(lambda t: t != "\n"), st.just("dim")), max_size=20), st.integers(0, 30)
)
def test_fitted_rows_fit(row: list[tuple[str, str]], columns: int) -> None:
    assert width(fit(tuple(row), columns)) <= columns
    if columns >= 4:
        assert width(spread(tuple(row), (("end", "key"),), columns)) == columns


def test_graphemes_have_the_width_that_the_terminal_gives_them() -> None:
    assert graphemes("a界e\u0301") == [("a", 1), ("界", 2), ("e\u0301", 1)]
    assert graphemes("👩‍👩‍👧") == [("👩‍👩‍👧", 2)]
    assert graphemes("🇩🇪🇫") == [("🇩🇪", 2), ("🇫", 1)]


@given(st.lists(ALPHABET.filter(lambda text: text != "\n"), max_size=20).map("".join))
@example("\u200d\u200da")
@example("\u200d\u200d")
@example("\u200d\u0301a\u200d\u200db")
def test_widths_add_up(text: str) -> None:
    """Of its characters, of its cells and as the painting library counts it."""
    row = ((text, ""),)
    assert sum(wide for _, wide in graphemes(text)) == width(row) == cell_len(text.lstrip("\u200d"))
    assert len(cells_of(row)) == width(row)
    assert "".join(character for character, _ in graphemes(text)) == text


@given(
    st.integers(2, 20),
    st.lists(st.sampled_from(["안녕하세요", " 한국어", " 번역", "👩‍👧", "🇰🇷", "é", " ok"]), max_size=8),
)
def test_text_in_pieces_of_bytes_streams_whole_characters(columns: int, words: list[str]) -> None:
    """A tokenizer that never saw Korean gives single bytes: what is not a character yet is held back."""
    text = "".join(words)
    detokenizer = StreamingDetokenizer(BYTES)
    paragraph = Paragraph(columns)
    ids = BYTES.encode(text)
    for token in ids:
        piece = detokenizer.push(token)
        assert "\ufffd" not in piece
        paragraph.append(piece)
        assert all(
            width(((paragraph.text[row.start : row.end].rstrip(" "), ""),)) <= columns
            for row in paragraph.rows
        )
    assert paragraph.text + detokenizer.flush() == text.removeprefix(
        " "
    )  # the tokenizer takes the first away
    assert len(paragraph.starts) == len(ids)  # a token that shows nothing yet still has its place
