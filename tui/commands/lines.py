"""stdin as chunks of numbered lines: bounded memory, no waiting for what is not there yet.

A pipe may be a file of a million lines or a program that prints one a minute. Both are served: a chunk
ends when it is full or when nothing more has arrived, so output flows as input does.
"""

from __future__ import annotations

import os
import select
import sys
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

CHUNK = 256  # lines translated as one sorted batch
MAX_LINE = 1 << 20  # bytes; beyond this it is no line of text
READ_AHEAD = 4 << 20  # bytes held beyond the current chunk, so that the length of short inputs is known
PATIENCE = 0.05  # seconds a half-full chunk waits for more


class Line(NamedTuple):
    number: int  # from 1
    text: str  # without its line end


class LineReader:
    """Reads a file descriptor of UTF-8 text.

    ``chunks`` yields lists of :class:`Line`. The lines before a bad one are yielded before the ValueError
    that names it is raised, so that nothing that could be worked on is lost.
    """

    def __init__(self, fd: int, name: str = "stdin") -> None:
        self.name = name
        self._fd = fd
        self._tail = b""
        self._lines: deque[bytes] = deque()
        self._held = 0  # bytes in _lines
        self._taken = 0
        self._ended = False

    @property
    def total(self) -> int | None:
        """How many lines there are, once that is known."""
        return self._taken + len(self._lines) if self._ended else None

    def chunks(self, size: int = CHUNK) -> Iterator[list[Line]]:
        while True:
            self._fill(size)
            chunk: list[Line] = []
            problem: ValueError | None = None
            while self._lines and len(chunk) < size and problem is None:
                raw = self._lines.popleft()
                self._held -= len(raw)
                self._taken += 1
                try:
                    chunk.append(Line(self._taken, self._decode(raw)))
                except ValueError as error:
                    problem = error
            if chunk:
                yield chunk
            if problem is None and len(self._tail) > MAX_LINE:
                problem = self._too_long(self._taken + 1) if not self._lines else None
            if problem is not None:
                raise problem
            if self._ended and not self._lines:
                return

    def _fill(self, size: int) -> None:
        """Read until something can be worked on, then for as long as more is already there."""
        while not self._ended and self._held < READ_AHEAD and len(self._tail) <= MAX_LINE:
            if self._lines:
                wait = PATIENCE if len(self._lines) < size else 0.0
                if not select.select([self._fd], [], [], wait)[0]:
                    return
            data = os.read(self._fd, 1 << 16)
            if not data:
                self._ended = True
                data = b"\n" if self._tail else b""  # a last line without a line end is a line
            *whole, self._tail = (self._tail + data).split(b"\n")
            self._lines.extend(whole)
            self._held += sum(map(len, whole))

    def _decode(self, raw: bytes) -> str:
        if len(raw) > MAX_LINE:
            raise self._too_long(self._taken)
        try:
            text = raw.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"line {self._taken} of {self.name} is not valid UTF-8 (byte {error.start + 1} of the line "
                f"is 0x{raw[error.start]:02x}); convert the text to UTF-8 first"
            ) from None
        return text.removeprefix("\ufeff") if self._taken == 1 else text

    def _too_long(self, number: int) -> ValueError:
        return ValueError(
            f"line {number} of {self.name} is longer than {MAX_LINE:,} bytes; put one sentence on each line"
        )


def text_or_stdin(text: str | None) -> str:
    """TEXT as it was given, or all of stdin as one text.

    Raises:
        ValueError: neither is there, the text is empty, or it is not UTF-8.
    """
    if text is None:
        if sys.stdin.isatty():
            raise ValueError("there is no text: give TEXT, or pipe one in")
        lines = [line.text for chunk in LineReader(sys.stdin.fileno()).chunks() for line in chunk]
        text = "\n".join(lines)
    return checked_text(text)


def checked_text(text: str) -> str:
    """A text from the command line. Raises ValueError where it is blank or was not UTF-8."""
    if not text.strip():
        raise ValueError("the text is empty; give a sentence")
    if any("\ud800" <= character <= "\udfff" for character in text):  # how argv carries stray bytes
        raise ValueError("the text is not valid UTF-8; convert it to UTF-8 first")
    return text
