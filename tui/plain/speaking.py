"""What the dialogue says: whole words and lines, one after the other, and never a control character."""

from __future__ import annotations

import os
import re
import sys

from tfm.tui.safe_text import safe_text

_LAST_WORD = re.compile(r"\S*\Z")


class Speaker:
    """Results go to stdout. Remarks go there too where a person reads along, else to stderr.

    Raises:
        BrokenPipeError: nobody reads any more, or the terminal is gone.
    """

    def __init__(self) -> None:
        self.by_hand = os.isatty(0) and os.isatty(1)
        self._held = ""  # the beginning of a word that is not whole yet
        self._in_line = False

    def say(self, text: str = "") -> None:
        """A result: one or more whole lines."""
        self.end()
        self._write(1, safe_text(text, newlines=True) + "\n")

    def note(self, text: str) -> None:
        """A remark for the person."""
        self.end()
        self._write(1 if self.by_hand else 2, safe_text(text, newlines=True) + "\n")

    def prompt(self, text: str) -> None:
        """Ask for a line, where somebody is there to be asked."""
        if self.by_hand:
            self.end()
            self._write(1, safe_text(text) + "> ")

    def stream(self, piece: str) -> None:
        """Text as it comes; a screen reader is given whole words."""
        if not self.by_hand:
            self._held += piece
            return
        text = self._held + safe_text(piece, newlines=True)
        self._held = _LAST_WORD.search(text).group()  # type: ignore[union-attr]
        self._put(text[: len(text) - len(self._held)])

    def end(self) -> None:
        """The streamed text is at its end, and so is its line."""
        held, self._held = self._held, ""
        if held and not self.by_hand:
            self._write(1, safe_text(held, newlines=True) + "\n")
            return
        self._put(held)
        if self._in_line:
            self._in_line = False
            self._write(1, "\n")

    def _put(self, text: str) -> None:
        if text:
            self._write(1, text)
            self._in_line = not text.endswith("\n")

    def _write(self, fd: int, text: str) -> None:
        data = text.encode((sys.stdout.encoding or "utf-8") if os.isatty(fd) else "utf-8", "replace")
        try:
            while data:
                data = data[os.write(fd, data) :]
        except OSError as error:
            raise BrokenPipeError(*error.args) from None
