"""What there is to read about a checkpoint: facts, its card in full, its config; or two of them compared.

A card is text that somebody wrote: it is wrapped and shown as it is, and nothing in it is markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import BindingType

from tfm.core.compare import Compared, compare
from tfm.core.engine.protocol import ModelCard, ModelInfo
from tfm.tui import keymap
from tfm.tui.commands.output import human_bytes, human_count
from tfm.tui.safe_text import safe_text
from tfm.tui.widgets.cells import Row, width
from tfm.tui.widgets.painted import PaintedRows
from tfm.tui.widgets.wrap import wrap

FIELD = 21  # cells for the name of a field


class ModelPage(PaintedRows, can_focus=True):
    """Pages through rows; :meth:`read` and :meth:`compare` say which."""

    BINDINGS: ClassVar[list[BindingType]] = [*keymap.MODEL_PAGE]
    KEYS_TITLE = "On the card"

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._cards: tuple[ModelCard, ...] = ()  # none, one to read, two to compare
        self._verified: str | None = None
        self._lines: list[Row] = []

    def read(self, card: ModelCard | None, verified: str | None = None) -> None:
        """Show one card; ``verified`` is what verifying found, None where nobody did."""
        self._show((card,) if card is not None else (), verified)

    def compare(self, one: ModelCard, other: ModelCard) -> None:
        self._show((one, other), None)

    def _show(self, cards: tuple[ModelCard, ...], verified: str | None) -> None:
        if (cards, verified) == (self._cards, self._verified):
            return
        other = [card.info.path for card in cards] != [card.info.path for card in self._cards]
        self._cards, self._verified = cards, verified
        self._lay_out()
        if other:
            self.scroll_to(y=0, animate=False, force=True, immediate=True)
        self._following = False
        self.touch()

    # ------------------------------------------------------------------ rows
    @property
    def n_rows(self) -> int:
        return len(self._lines)

    def row(self, y: int) -> Row:
        return self._lines[y]

    def set_columns(self, columns: int) -> None:
        self._lay_out()
        self._following = False

    def _lay_out(self) -> None:
        columns = self.columns
        if len(self._cards) == 2:
            self._lines = _comparison(*self._cards, columns)
        elif self._cards:
            self._lines = _page(self._cards[0], self._verified, columns)
        else:
            self._lines = []


def _page(card: ModelCard, verified: str | None, columns: int) -> list[Row]:
    info = card.info
    rows: list[Row] = []
    if info.problem:
        rows += wrapped(f"It cannot be used: {info.problem}", columns, "bad")
    if verified is not None:
        said = verified or "Verified: every file is as its manifest says, every number is finite."
        rows += wrapped(said, columns, "bad" if verified else "second")
    figures = summary(info)
    first = [
        figures["family"],
        figures["languages"],
        f"{human_count(info.n_parameters)} parameters" if info.size_bytes else "",
    ]
    first += [figures["size"], figures["context"], figures["chat"] and "chats"]
    rows += wrapped(" · ".join(part for part in first if part), columns, "dim") if info.family else []
    rows += wrapped(figures["scores"], columns, "second")
    rows += _card_text(card.card, columns)
    rows += [(), (("Its files", "live"),)]
    for name, value in _files(card):
        rows += _fact(name, value, columns)
    if card.config:
        rows += [(), (("config.json", "live"),)]
        for pair in compare(card.config, card.config):
            rows += _fact(pair.field, pair.one, columns)
    return rows


def _files(card: ModelCard) -> list[tuple[str, str]]:
    origin = card.training.get("origin")
    facts = [("place", card.info.path)]
    if isinstance(origin, dict):  # it was imported
        told = (origin.get(key) for key in ("package", "format", "source", "architecture"))
        facts.append(("from", " · ".join(str(value) for value in told if value)))
    return facts + [(name, human_bytes(size)) for name, size in card.files.items()]


def summary(info: ModelInfo) -> dict[str, str]:
    """The figures of a model, as people read them; empty where unknown."""
    return {
        "family": info.family,
        "parameters": f"{human_count(info.n_parameters)} ({info.n_parameters:,})"
        if info.n_parameters
        else "",
        "size": human_bytes(info.size_bytes) if info.size_bytes else "",
        "context": f"{info.max_positions:,} tokens" if info.max_positions else "",
        "vocabulary": f"{info.vocab_size:,}" if info.vocab_size else "",
        "languages": " → ".join(info.languages),
        "scores": "   ".join(f"{name} {value:.4g}" for name, value in info.scores.items()),
        "chat": "yes" if info.chat else "",
    }


def _card_text(text: str, columns: int) -> list[Row]:
    """The card's lines, wrapped; headings are told apart by style only."""
    if not text.strip():
        return [(("There is no card.md in its folder.", "dim"),)]
    rows: list[Row] = []
    for line in safe_text(text.rstrip(), newlines=True).split("\n"):
        rows += wrapped(line, columns, "strong" if line.startswith("#") else "")
    return rows


def wrapped(text: str, columns: int, style: str) -> list[Row]:
    """A paragraph as rows; what hangs over behind a bullet is indented like it."""
    text = safe_text(text)
    indent = len(text) - len(text.lstrip("-* ")) if columns > 20 else 0
    indent = indent if indent <= 8 and text[:1] in " -*" else 0
    lines = wrap(text[indent:], 0, max(1, columns - indent))
    pieces = [text[indent:][line.start : line.end].rstrip() for line in lines]
    return [
        ((text[:indent] if not n else " " * indent, style), (piece, style)) for n, piece in enumerate(pieces)
    ]


def _fact(name: str, value: str, columns: int) -> list[Row]:
    label = min(FIELD, max(4, columns // 3))
    rows = wrapped(value, max(1, columns - label), "")
    head = safe_text(name)[: label - 1].ljust(label)
    return [((head if n == 0 else " " * label, "dim"), *row) for n, row in enumerate(rows)]


# --------------------------------------------------------------------------- two of them
def _comparison(one: ModelCard, other: ModelCard, columns: int) -> list[Row]:
    figures = _compared_figures(one.info, other.info)
    pairs = compare(one.config, other.config)
    n_differ = sum(pair.differs for pair in pairs)
    rows = _three(("", f"A  {one.info.name}", f"B  {other.info.name}"), columns, ("", "strong", "strong"))
    rows += _block(figures, columns)
    rows += [(), ((f"config.json: {n_differ} of {len(pairs)} fields differ", "live"),)]
    rows += _block([pair for pair in pairs if pair.differs], columns)
    same = [pair for pair in pairs if not pair.differs]
    if same:
        rows += [(), (("The same in both", "live"),), *_block(same, columns)]
    return rows


def _compared_figures(one: ModelInfo, other: ModelInfo) -> list[Compared]:
    first, second = summary(one), summary(other)
    for info, figures in ((one, first), (other, second)):
        del figures["scores"]
        figures |= {f"score {name}": f"{value:.4g}" for name, value in info.scores.items()}
    pairs = compare(first, second)
    return [pair for pair in pairs if pair.one or pair.other]


def _block(pairs: Sequence[Compared], columns: int) -> list[Row]:
    rows: list[Row] = []
    for pair in pairs:
        style = "" if pair.differs else "dim"
        rows += _three((pair.field, pair.one, pair.other), columns, ("dim", style, style), pair.differs)
    return rows


def _three(
    texts: tuple[str, str, str], columns: int, styles: tuple[str, str, str], mark: bool = False
) -> list[Row]:
    """Three columns side by side, each wrapped in its own width."""
    label = min(FIELD, max(4, columns // 3))
    half = max(1, (columns - 2 - label) // 2)
    widths = (label, half, half)
    blocks = [wrapped(text, room - 1, style) for text, room, style in zip(texts, widths, styles, strict=True)]
    rows: list[Row] = []
    for n in range(max(map(len, blocks))):
        row: Row = (("≠ " if mark and n == 0 else "  ", "live"),)
        for block, room in zip(blocks, widths, strict=True):
            cell = block[n] if n < len(block) else ()
            row = (*row, *cell, (" " * (room - width(cell)), ""))
        rows.append(row)
    return rows
