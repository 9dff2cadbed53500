"""What was translated before, newest first, so that nothing seems lost when a new text is typed."""

from __future__ import annotations

from collections.abc import Sequence

from tfm.tui.exchange import Exchange
from tfm.tui.widgets.cells import Row, Span
from tfm.tui.widgets.lines import Lines


class Earlier(Lines):
    """Two rows an exchange, the one on the screen marked. As many as there is room for."""

    history: Sequence[Exchange] = ()
    shown: Exchange | None = None

    def build(self, columns: int) -> Sequence[Sequence[Span]]:
        if not self.history:
            hint = "Your texts stay here: {translate.older} {translate.newer}"
            return [((self.keys_of_now.told(hint), "faint"),)]
        rows: list[Row] = []
        newest_first = list(reversed(self.history))
        at = newest_first.index(self.shown) if self.shown in newest_first else 0
        first = max(0, at - max(1, self.size.height // 2) + 1)
        for exchange in newest_first[first:]:
            here = exchange is self.shown
            rows.append((("▸ " if here else "  ", "live"), (_one_line(exchange.source), "dim")))
            text = _one_line(exchange.text) or exchange.problem or ("…" if not exchange.ended else "stopped")
            rows.append((("  ", ""), (text, "" if here else "dim")))
        return rows


def _one_line(text: str) -> str:
    return " ".join(text.split())
