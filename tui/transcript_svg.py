"""A page as an SVG picture whose text can be selected. Shades say how sure the model was of a token."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from tfm.tui.export import Block, Page
from tfm.tui.safe_text import safe_text
from tfm.tui.widgets.cells import graphemes
from tfm.tui.widgets.wrap import wrap

COLUMNS = 80
CELL, LINE, MARGIN = 8.4, 20, 24  # of a monospaced 14 px font, in px

INK, QUIET, PAPER, ACCENT = "#d8d6cf", "#8a8d93", "#14161a", "#e5b567"
SURENESS = ((0.1, "#e07a70"), (0.3, "#e5b567"), (0.6, "#a9b7c9"))  # below: fill; else INK
_STYLE = "font-family:'DejaVu Sans Mono','Noto Sans Mono CJK KR',Menlo,Consolas,monospace;font-size:14px"


class Run(NamedTuple):
    text: str
    fill: str
    bold: bool = False


def as_svg(page: Page) -> str:
    """The whole page, however long."""
    rows: list[list[Run]] = [[Run(safe_text(page.title), ACCENT, True)]]
    for line in _wrapped(page.lead) if page.lead else ():
        rows.append([Run(line, QUIET)])
    shaded = False
    for block in page.blocks:
        rows += [[], [Run(safe_text(block.label), QUIET, True)], *_text_rows(block)]
        notes = (block.note, *block.marks)
        rows += [[Run(line, QUIET)] for note in notes if note for line in _wrapped(note)]
        shaded = shaded or any(sure is not None for _, sure in block.pieces)
    if shaded:
        rows += [[], _legend()]
    width, height = COLUMNS * CELL + 2 * MARGIN, len(rows) * LINE + 2 * MARGIN
    texts = "\n".join(_row(row, MARGIN + LINE * (n + 1) - 6) for n, row in enumerate(rows) if row)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" '
        f'width="{width:.0f}" height="{height}" style="{_STYLE}">\n'
        f'<rect width="100%" height="100%" fill="{PAPER}"/>\n{texts}\n</svg>\n'
    )


def _wrapped(text: str) -> list[str]:
    safe = safe_text(text.strip(), newlines=True)
    return [safe[line.start : line.end] for line in wrap(safe, 0, COLUMNS)]


def _text_rows(block: Block) -> list[list[Run]]:
    """The block's text in rows; its tokens shaded where their probabilities are known."""
    pieces = block.pieces or ((block.text.strip(), None),)
    safe = [(safe_text(piece, newlines=True), sure) for piece, sure in pieces]
    text = "".join(piece for piece, _ in safe)
    fills: list[str] = []
    for piece, sure in safe:
        fills += [fill_of(sure)] * len(piece)
    rows: list[list[Run]] = []
    for line in wrap(text, 0, COLUMNS):
        runs: list[Run] = []
        for index in range(line.start, line.end):
            if runs and runs[-1].fill == fills[index]:
                runs[-1] = Run(runs[-1].text + text[index], fills[index])
            else:
                runs.append(Run(text[index], fills[index]))
        rows.append(runs)
    return rows


def fill_of(sure: float | None) -> str:
    """The colour of a token of this probability."""
    if sure is None:
        return INK
    return next((fill for below, fill in SURENESS if sure < below), INK)


def _legend() -> list[Run]:
    runs = [Run("how sure: ", QUIET)]
    runs += [Run(f"below {below:g}  ", fill) for below, fill in SURENESS]
    return [*runs, Run("surer", INK)]


def _row(runs: Sequence[Run], y: float) -> str:
    """Every run begins at its own column, so that wide characters never shift what follows."""
    out, column = [], 0
    for run in runs:
        cells = sum(wide for _, wide in graphemes(run.text))
        if run.text.strip():
            weight = ' font-weight="bold"' if run.bold else ""
            out.append(
                f'<text x="{MARGIN + column * CELL:.1f}" y="{y}" fill="{run.fill}"{weight} '
                f'textLength="{cells * CELL:.1f}" lengthAdjust="spacingAndGlyphs" '
                f'xml:space="preserve">{escape(run.text)}</text>'
            )
        column += cells
    return "".join(out)
