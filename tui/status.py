"""The status line: what the header says about model, speed, context, connection and machine.

Parts with a rank, in the order in which they are read. Where a terminal is too narrow for all, the ones
of the highest rank go first, so that at 80 columns the model, its speed and how full its context is are
left, and a lost engine is never hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tfm.core.engine.protocol import Box
from tfm.tui.widgets.cells import Row, Span, width

ALWAYS, SPEED, CONTEXT, DEVICE, PRECISION, GPU, MEMORY = range(7)
NEEDED = DEVICE  # up to this rank the names of the modes make room
_FULL = 0.9  # of a context or of a memory: worth a look


class Part(NamedTuple):
    """One thing to say."""

    text: str
    style: str = "dim"
    rank: int = ALWAYS


def line(parts: Sequence[Part], columns: int) -> Row:
    """As many parts as there is room for, the important ones first."""
    kept = list(parts)
    while kept and width(_row(kept)) > columns and max(part.rank for part in kept) > ALWAYS:
        worst = max(part.rank for part in kept)
        kept = [part for part in kept if part.rank != worst]
    return _row(kept)


def needed(parts: Sequence[Part]) -> int:
    """Columns that the parts take without which a person would miss something."""
    return width(_row([part for part in parts if part.rank <= NEEDED]))


def _row(parts: Sequence[Part]) -> Row:
    spans: list[Span] = []
    for part in parts:
        if spans:
            spans.append((" · ", "dim"))
        spans.append((part.text, part.style))
    return tuple(spans)


def model_parts(name: str, place: str, device: str, precision: str, rate: float) -> list[Part]:
    """A model that is loaded. ``place``: the machine, where it is not this one."""
    parts = [Part(name, "strong"), Part(_short(device), rank=DEVICE), Part(precision, rank=PRECISION)]
    if place:
        parts.insert(1, Part(place, "second", rank=ALWAYS))
    if rate:
        parts.append(Part(f"{rate:,.0f} tok/s", rank=SPEED))
    return parts


def context_part(used: int, room: int) -> list[Part]:
    """How full the context is. A mark, and not its colour alone, says that it is nearly full."""
    if not used or not room:
        return []
    share = used / room
    return [
        Part(f"ctx {share:.0%}{'!' if share >= _FULL else ''}", "bad" if share >= _FULL else "dim", CONTEXT)
    ]


def line_part(slow: str) -> list[Part]:
    """That the line to the terminal is slow, and how many frames a second it gets."""
    return [Part(slow, "second", SPEED)] if slow else []


def box_parts(box: Box | None) -> list[Part]:
    """Memory and cards of the engine's machine."""
    if box is None:
        return []
    parts: list[Part] = []
    for number, card in enumerate(box.gpus):
        name = "gpu" if len(box.gpus) == 1 else f"gpu{number}"
        figures = []
        if "utilisation" in card:
            figures.append(f"{card['utilisation']:.0f}%")
        if card.get("memory_total"):
            figures.append(f"{card.get('memory_used', 0) / 2**30:.0f}/{card['memory_total'] / 2**30:.0f}G")
        if figures:
            parts.append(Part(f"{name} {' '.join(figures)}", rank=GPU))
    if box.memory_total:
        full = box.memory_used >= _FULL * box.memory_total
        figures_of_memory = f"mem {box.memory_used / 2**30:.1f}/{box.memory_total / 2**30:.0f}G"
        parts.append(Part(figures_of_memory + ("!" if full else ""), "bad" if full else "dim", MEMORY))
    return parts


def _short(device: str) -> str:
    """``cuda:0 NVIDIA H100 80GB`` is ``cuda:0``."""
    return device.split(" ")[0]
