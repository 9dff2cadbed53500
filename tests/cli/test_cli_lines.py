"""stdin as chunks of numbered lines."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfm.tui.commands import lines
from tfm.tui.commands.lines import LineReader, checked_text


@contextmanager
def piped(data: bytes) -> Iterator[LineReader]:
    """A reader of a pipe that another thread fills."""
    read, write = os.pipe()

    def fill() -> None:
        with os.fdopen(write, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield LineReader(read)
    finally:
        while os.read(read, 1 << 20):
            pass
        thread.join()
        os.close(read)


def texts(data: bytes, size: int = 256) -> list[str]:
    with piped(data) as reader:
        found = [line for chunk in reader.chunks(size) for line in chunk]
    assert [line.number for line in found] == list(range(1, len(found) + 1))
    return [line.text for line in found]


line_texts = st.text(st.characters(exclude_characters="\n\r\ufeff", exclude_categories=["Cs"]), max_size=30)


@given(st.lists(line_texts), st.integers(1, 7))
def test_only_a_newline_ends_a_line(written: list[str], size: int) -> None:
    assert texts("".join(line + "\n" for line in written).encode(), size) == written


def test_a_last_line_needs_no_end() -> None:
    assert texts(b"one\ntwo") == ["one", "two"]
    assert texts(b"") == []


def test_marks_and_carriage_returns_are_no_text() -> None:
    assert texts(b"\xef\xbb\xbfone\r\ntwo\r\n\r\nthree") == ["one", "two", "", "three"]


def test_lines_before_bytes_that_are_not_utf8_come_first() -> None:
    with piped(b"one\ntwo\nthr\xffee\nfour\n") as reader:
        chunks = reader.chunks()
        assert [line.text for line in next(chunks)] == ["one", "two"]
        with pytest.raises(ValueError, match=r"line 3 of stdin is not valid UTF-8 \(byte 4 .* 0xff"):
            next(chunks)


def test_a_line_without_an_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE", 1000)
    with piped(b"one\n" + b"x" * 500_000) as reader:
        chunks = reader.chunks()
        assert [line.text for line in next(chunks)] == ["one"]
        with pytest.raises(ValueError, match="line 2 of stdin is longer than 1,000 bytes"):
            next(chunks)


def test_a_slow_writer_is_not_waited_for() -> None:
    read, write = os.pipe()
    reader = LineReader(read)
    chunks = reader.chunks()
    os.write(write, b"one\ntw")
    begin = time.monotonic()
    assert [line.text for line in next(chunks)] == ["one"]
    assert time.monotonic() - begin < 5
    assert reader.total is None
    os.write(write, b"o\n")
    assert [line.text for line in next(chunks)] == ["two"]
    os.close(write)
    assert list(chunks) == []
    assert reader.total == 2
    os.close(read)


def test_the_total_of_a_short_input_is_known_at_once() -> None:
    with piped(b"line\n" * 1000) as reader:
        chunk = next(reader.chunks(10))
        assert len(chunk) == 10
        assert reader.total in (1000, None)  # None: the writer was slower than us
        time.sleep(0.2)
        next(reader.chunks(10))
        assert reader.total == 1000


def test_reading_ahead_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "READ_AHEAD", 10_000)
    with piped(b"line\n" * 200_000) as reader:
        next(reader.chunks(10))
        assert reader.total is None


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_a_blank_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="empty"):
        checked_text(text)


def test_stray_bytes_of_an_argument_are_refused() -> None:
    with pytest.raises(ValueError, match="not valid UTF-8"):
        checked_text(os.fsdecode(b"caf\xe9"))
