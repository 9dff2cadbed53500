"""LaneText: the text a lane has written, given out piece by piece, ended by stop strings.

A stop string may straddle tokens, overlap itself and begin inside text that looked harmless, so it is
looked for in the text and not among the tokens, and an end of the text that may still become a stop is
held back until it is decided.
"""

from __future__ import annotations

from collections.abc import Sequence

from tfm.core.tokenizer import StreamingDetokenizer, Tokenizer


class LaneText:
    """Feed it token ids; what it gives out, joined, is the text up to the first stop string.

    The first stop is the one that is complete first, as if characters came one by one; of several
    complete at once, the longest. Text of the ``prefix`` counts as given out already; a stop may
    begin in it but not lie wholly inside.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = (), prefix: Sequence[int] = ()) -> None:
        """Raises ValueError for an empty stop string."""
        if "" in stop:
            raise ValueError("a stop string must not be empty")
        self._stop = tuple(stop)
        self._longest = max(map(len, self._stop), default=0)
        self._detokenizer = StreamingDetokenizer(tokenizer)
        self.text = "".join(self._detokenizer.push(token) for token in prefix)
        self._given = len(self.text)
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that is certain now and was not before."""
        return self._take(self._detokenizer.push(token))

    def finish(self) -> str:
        """All that was held back; bytes that never became a character are U+FFFD."""
        piece = self._take(self._detokenizer.flush())
        rest = self.text[self._given :]
        self._given = len(self.text)
        return piece + rest

    def _take(self, new: str) -> str:
        if self.stopped:
            return ""
        old = len(self.text)
        self.text += new
        start = self._find_stop(old)
        if start is not None:
            self.stopped = True
            self.text = self.text[:start]
            certain = start
        else:
            certain = len(self.text) - self._undecided()
        piece = self.text[self._given : certain]
        self._given = max(self._given, certain)
        return piece

    def _find_stop(self, old: int) -> int | None:
        """Where the first stop that ends behind ``old`` begins."""
        ends = [
            (start + len(stop), start)
            for stop in self._stop
            if (start := self.text.find(stop, max(0, old + 1 - len(stop)))) >= 0
        ]
        return min(ends)[1] if ends else None

    def _undecided(self) -> int:
        """Length of the longest end of the text that is the beginning of a stop."""
        for length in range(min(self._longest - 1, len(self.text)), 0, -1):
            end = self.text[-length:]
            if any(len(stop) > length and stop.startswith(end) for stop in self._stop):
                return length
        return 0
