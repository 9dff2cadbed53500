"""The token under the eye: its rivals, how likely each was, and which stage removed them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size

from tfm.core.engine.protocol import BeamHypothesis, Candidate, Token
from tfm.tui.confidence import legend
from tfm.tui.safe_text import safe_text
from tfm.tui.widgets.cells import Row, Span, width
from tfm.tui.widgets.lines import Lines
from tfm.tui.widgets.painted import MARK

_GAP = 3


class TokenPanel(Lines):
    """Shows the candidates of one token, or the best hypotheses of a beam."""

    def __init__(self, *, numbered: bool = False, id: str | None = None, classes: str | None = None) -> None:
        """``numbered``: each candidate stands behind the digit that takes it."""
        super().__init__(id=id, classes=classes)
        self._numbered = numbered
        self._token: Token | None = None
        self._beam: tuple[BeamHypothesis, ...] = ()
        self._hint = ""
        self._title = self._mark = ""
        self._legend = ""  # the binding that takes away the colours, while there are any

    def legend(self, id: str) -> None:
        """Show what the colours of the text mean, at the right end of the rule, and the key of this binding;
        of none: there are no colours."""
        if id != self._legend:
            self._legend = id
            self.repaint()

    def title(self, text: str, mark: str = "") -> None:
        """What the rule above says; first, what the token's mark does. It is a row and no border title, so
        that only its figures repaint."""
        self._title, self._mark = text, mark
        self.repaint()

    def token(self, token: Token | None, hint: str = "") -> None:
        self._token, self._beam, self._hint = token, (), hint
        self.repaint()

    def beam(self, hypotheses: tuple[BeamHypothesis, ...]) -> None:
        self._token, self._beam = None, hypotheses
        self.repaint()

    def build(self, columns: int) -> Sequence[Sequence[Span]]:
        mark: Row = ((f"{MARK} {self._mark}", "live"), (" · ", "dim")) if self._mark else ()
        rule: Row = (("── ", "line"), *mark, (self._title, "dim"), (" " + "─" * columns, "line"))
        right = legend(self.keys_of_now.name(self._legend)) if self._legend else ()
        if width(right) > columns:
            right = ()
        return [(*_clip(rule, columns - width(right)), *right), *self._body(columns - 2)]

    def _body(self, columns: int) -> Sequence[Sequence[Span]]:
        if self._beam:
            return [((" ", ""), *_hypothesis(n, h)) for n, h in enumerate(self._beam)]
        if self._token is None or not self._token.top:
            return [((" ", ""), (self._hint, "dim"))]
        return [((" ", ""), *row) for row in _candidates(self._token, columns, self._numbered)]


def _clip(rule: Row, columns: int) -> list[Span]:
    """A rule as long as the line, with no sign that it could be longer."""
    clipped: list[Span] = []
    for text, style in rule:
        left = columns - width(tuple(clipped))
        clipped.append((text if cell_len(text) <= left else set_cell_size(text, left), style))
    return clipped


def _hypothesis(rank: int, hypothesis: BeamHypothesis) -> Row:
    style = "" if rank == 0 else "dim"
    return ((f"{rank + 1} ", "live" if rank == 0 else "faint"), (f"{hypothesis.score:7.2f}  ", "dim"),
            (hypothesis.text, style))  # fmt: skip


def ranked(token: Token) -> list[Candidate]:
    """A token's rivals in the order in which they are shown."""
    return sorted(token.top, key=lambda c: (-c.final, -c.raw))


def _candidates(token: Token, columns: int, numbered: bool) -> list[Row]:
    """Two rows: what each token's chance was in the draw, and below it what the model itself said."""
    first: list[Span] = [("drawn  ", "faint")]
    second: list[Span] = [("model  ", "faint")]
    for rank, candidate in enumerate(ranked(token), 1):
        piece = f"{rank} " * numbered + visible_piece(candidate.piece)
        taken = candidate.token == token.token
        chance = f"{candidate.final:.2f}" if candidate.final > 0 else "–"
        raw = f"{candidate.raw:.2f}"
        if candidate.final <= 0 and candidate.removed_by:
            raw += f" {candidate.removed_by}"
        cells = max(cell_len(piece) + 1 + len(chance), cell_len(raw))
        if width(tuple(first)) + cells > columns:
            break
        style = "live" if taken else ("" if candidate.final > 0 else "gone")
        first += [(piece, style), (f" {chance}", "strong" if taken else "dim")]
        first.append((" " * (cells - cell_len(piece) - 1 - len(chance) + _GAP), ""))
        indent = max(0, min(cell_len(piece) + 1, cells - cell_len(raw)))
        second += [(" " * indent + raw, "dim"), (" " * (cells - indent - cell_len(raw) + _GAP), "")]
    return [tuple(first), tuple(second)]


def visible_piece(piece: str) -> str:
    """A token's text where it stands alone; a dot marks one that goes on with the word before it."""
    if not piece:
        return "∅"
    if piece.isspace():
        return "␣" * min(len(piece), 3)
    text = safe_text(piece.strip(" "))
    return "·" + text if piece[0].isalnum() else text
