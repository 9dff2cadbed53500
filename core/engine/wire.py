"""Whole lines in, whole lines out: the two ends of the engine's pipe. No torch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from tfm.core.engine.protocol import Event, encode

MAX_LINE = 16 << 20  # bytes; a request is a prompt and settings, never more


class LineTooLong(ValueError):
    """A line longer than MAX_LINE came in; it was skipped to its end."""


class Outbox:
    """Writes events, each batch in one piece, from any thread.

    Once the reader of the pipe has gone, everything is dropped; ``on_broken`` is called once.
    """

    def __init__(self, stream: BinaryIO, on_broken: Callable[[], None]) -> None:
        self._stream = stream
        self._on_broken = on_broken
        self._lock = threading.Lock()
        self._broken = False

    def send(self, events: Iterable[Event]) -> None:
        data = b"".join(encode(event) for event in events)
        with self._lock:
            if not data or self._broken:
                return
            try:
                self._stream.write(data)
                self._stream.flush()
            except (OSError, ValueError):  # ValueError: the stream was closed under us
                self._broken = True
            else:
                return
        self._on_broken()


def read_lines(stream: BinaryIO) -> Iterator[bytes | LineTooLong]:
    """Lines without their newline until end of input; empty ones are skipped.

    A line over MAX_LINE is skipped and stands as a LineTooLong, so that one mistake is one answer.
    What follows the last newline when the input ends is a torn line, and dropped.
    """
    while True:
        line = stream.readline(MAX_LINE + 1)
        if line.endswith(b"\n"):
            if line.strip():
                yield line.rstrip(b"\r\n")
        elif len(line) <= MAX_LINE:
            return
        else:
            while line and not line.endswith(b"\n"):
                line = stream.readline(1 << 16)
            yield LineTooLong(f"a request may be at most {MAX_LINE:,} bytes long")
