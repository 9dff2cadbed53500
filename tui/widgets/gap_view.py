"""The filled text, its masks to walk along, and the candidates of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len
from textual.binding import BindingType
from textual.message import Message

from tfm.core.engine.protocol import Candidate
from tfm.tui import keymap
from tfm.tui.gaps import Gap, GapText
from tfm.tui.safe_text import safe_text
from tfm.tui.widgets.cells import Row, Span
from tfm.tui.widgets.lines import Lines
from tfm.tui.widgets.token_panel import visible_piece
from tfm.tui.widgets.wrap import wrap

MOST = 9  # candidates: as many as there are digits


class FilledText(Lines, can_focus=True):
    """The text with a word in each mask. Brackets tell the masks apart where there are no colours."""

    BINDINGS: ClassVar[list[BindingType]] = [*keymap.GAPS]
    KEYS_TITLE = "On the masks"  # in the help

    class Walk(Message):
        """Go to the mask ``by`` places on."""

        def __init__(self, by: int) -> None:
            super().__init__()
            self.by = by

    class Choose(Message):
        """Mark the candidate ``by`` places down."""

        def __init__(self, by: int) -> None:
            super().__init__()
            self.by = by

    class Take(Message):
        """Take the candidate of this rank; 0: the one that is marked."""

        def __init__(self, rank: int) -> None:
            super().__init__()
            self.rank = rank

    class Open(Message):
        """Take the word out again."""

    text = GapText("")
    here = 0  # the mask that keys act on
    problem = ""

    def action_walk(self, by: int) -> None:
        self.post_message(self.Walk(by))

    def action_choose(self, by: int) -> None:
        self.post_message(self.Choose(by))

    def action_take(self, rank: int) -> None:
        self.post_message(self.Take(rank))

    def action_open(self) -> None:
        self.post_message(self.Open())

    def build(self, columns: int) -> Sequence[Sequence[Span]]:
        if self.problem:
            return _wrapped([(self.problem, "bad")], columns)
        if not self.text.gaps:
            return _wrapped([(self.keys_of_now.told(_HINT), "faint")], columns)
        spans: list[Span] = []
        for piece, number in self.text.filled():
            if number is None:
                spans.append((piece, ""))
                continue
            gap = self.text.gaps[number]
            style = "selected" if number == self.here else ("strong" if gap.taken else "second")
            spans.append((f"[{piece}]" if not gap.taken and gap.candidates else piece, style))
        rows = _wrapped(spans, columns)
        at = next((y for y, row in enumerate(rows) if any(style == "selected" for _, style in row)), 0)
        height = max(1, self.size.height)
        return rows[max(0, min(at - height // 2, len(rows) - height)) :]


_HINT = (
    "Write a text above, put the cursor on a word and press {fill.mask}: the word is masked, and the model "
    "fills it."
)


def _wrapped(spans: Sequence[Span], columns: int) -> list[Row]:
    """Spans broken into rows."""
    spans = [(safe_text(text, newlines=True), style) for text, style in spans]
    whole = "".join(text for text, _ in spans)
    rows: list[Row] = []
    for line in wrap(whole, 0, max(1, columns)):
        row: list[Span] = []
        start = 0
        for text, style in spans:
            end = start + len(text)
            cut = whole[max(start, line.start) : min(end, line.end)]
            if cut:
                row.append((cut, style))
            start = end
        if row:  # the space that a row breaks at hangs over its edge
            row[-1] = (row[-1][0].rstrip(" "), row[-1][1])
        rows.append(tuple(row))
    return rows


class CandidateList(Lines):
    """The candidates of one mask: the digit that takes it, what the model gives it, what the knobs leave."""

    gap: Gap | None = None
    marked = 0

    def build(self, columns: int) -> Sequence[Sequence[Span]]:
        if self.gap is None or not self.gap.candidates:
            return [(("What may stand in a mask shows here.", "faint"),)]
        rows: list[Row] = [((f"{'':14}model  drawn", "faint"),)]
        most = max(candidate.raw for candidate in self.gap.candidates)
        rows += [
            self._candidate(rank, candidate, most, columns)
            for rank, candidate in enumerate(self.gap.candidates[:MOST], 1)
        ]
        return rows

    def _candidate(self, rank: int, candidate: Candidate, most: float, columns: int) -> Row:
        assert self.gap is not None
        taken = self.gap.taken is not None and self.gap.taken.token == candidate.token
        mark = "●" if taken else ("▸" if rank - 1 == self.marked else " ")
        piece = visible_piece(candidate.piece)
        gone = candidate.final <= 0
        chance = "  –  " if gone else f"{candidate.final:5.2f}"
        room = max(0, columns - 28)
        bar = "▇" * round(candidate.raw / most * room) if most > 0 else ""
        style = "live" if taken else ("gone" if gone else "")
        return (
            (f"{rank} ", "key"), (mark, "live"), (piece, style), (" " * max(1, 11 - cell_len(piece)), ""),
            (f"{candidate.raw:5.2f}  ", ""), (chance, "dim" if gone else "strong"), ("  ", ""),
            (bar, "live" if taken else "second"),
        )  # fmt: skip


def about(gap: Gap) -> str:
    """What the list cannot show: a word that was drawn from further down, and the word that was masked."""
    first = gap.candidates[:MOST]
    parts = []
    if gap.taken is not None and all(one.token != gap.taken.token for one in first):
        parts.append(f"{visible_piece(gap.taken.piece)} {gap.taken.raw:.3f}")
    if gap.hidden and first:
        ranks = [rank for rank, one in enumerate(first, 1) if one.piece.strip() == gap.hidden]
        place = f"number {ranks[0]}" if ranks else f"not in the first {len(first)}"
        parts.append(f"you had {gap.hidden}: {place}")
    return " · ".join(parts)
