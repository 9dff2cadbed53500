"""Work written out for others: Markdown to read, JSON for programs, SVG to show. Never over a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from tfm.core.engine import protocol
from tfm.train.files import write_atomically
from tfm.tui.conversation import Conversation, Turn
from tfm.tui.exchange import Exchange
from tfm.tui.marks import of_tokens, told_with_places
from tfm.tui.notebook import Notebook
from tfm.tui.replies import Heard, pieces
from tfm.tui.widgets.sampling_panel import Decoding


class Block(NamedTuple):
    """Something that was said or made, and by whom."""

    label: str
    text: str
    note: str = ""  # how it was made
    pieces: tuple[tuple[str, float | None], ...] = ()  # its tokens' texts and probabilities, where known
    marks: tuple[str, ...] = ()  # what was turned while it was written, and where


class Page(NamedTuple):
    """A work as it is read: from top to bottom."""

    title: str
    lead: str
    blocks: tuple[Block, ...]


def export(name: str, page: Page, data: bytes, folder: Path) -> tuple[Path, Path, Path]:
    """Write a Markdown, a JSON and an SVG file of one name into the folder, over none that are there.

    Raises:
        OSError: it cannot be written there.
    """
    from tfm.tui.transcript_svg import as_svg

    folder.mkdir(parents=True, exist_ok=True)
    stem, number = name, 1
    while any((folder / f"{stem}.{ending}").exists() for ending in ("md", "json", "svg")):
        number += 1
        stem = f"{name}-{number}"
    markdown, plain, svg = (folder / f"{stem}.{ending}" for ending in ("md", "json", "svg"))
    write_atomically(markdown, as_markdown(page).encode("utf-8", "replace"))
    write_atomically(plain, data + b"\n")
    write_atomically(svg, as_svg(page).encode("utf-8", "replace"))
    return markdown, plain, svg


def as_markdown(page: Page) -> str:
    """As a person reads it; how each text was made stands below it."""
    parts = [f"# {page.title}"]
    if page.lead:
        parts.append("> " + "\n> ".join(page.lead.splitlines()))
    for block in page.blocks:
        parts.append(f"## {block.label}\n\n{block.text.strip()}")
        if block.note:
            parts.append(f"*{block.note}*")
        parts += [f"*{mark}*" for mark in block.marks]
    return "\n\n".join(parts) + "\n"


def as_text(page: Page) -> str:
    """The bare words, for the clipboard."""
    return "\n\n".join(f"{block.label}:\n{block.text.strip()}" for block in page.blocks) + "\n"


# --------------------------------------------------------------------------- conversations
def chat_page(conversation: Conversation, heard: Heard | None = None) -> Page:
    """The turns on the screen; tokens of ``heard`` bring their probabilities."""
    blocks: list[Block] = []
    for number in conversation.path:
        turn = conversation.turns[number]
        if turn.role == "user":
            blocks.append(Block("You", turn.text))
        else:
            told = _pieces(turn, heard or {}, number)
            turned = told_with_places(turn.settings, turn.marks, turn.text)
            blocks.append(Block(turn.model or "Model", turn.text, how_made(turn), told, turned))
    return Page(conversation.title or "Conversation", conversation.system.strip(), tuple(blocks))


def chat_json(conversation: Conversation) -> bytes:
    """The whole tree with every setting, and the turns on the screen as messages for other programs."""
    messages = conversation.messages(conversation.last)
    whole = {"title": conversation.title, "messages": messages, "conversation": conversation}
    return msgspec.json.format(msgspec.json.encode(whole), indent=1)


def _pieces(turn: Turn, heard: Heard, number: int) -> tuple[tuple[str, float | None], ...]:
    tokens = heard.get(number, [])
    told, first = pieces(turn, tokens)
    known = [None] * first + [math.exp(token.logprob) for token in tokens]
    return tuple(zip(told, known, strict=False))


_ENDS = {
    "length": "cut at its longest",
    "cancelled": "stopped",
    "stop": "ended by a stop string",
    "lost": "broken off",
    "edited": "written or changed by hand",
}


def how_made(reply: Turn) -> str:
    """Seed, settings that are not neutral, and how it ended."""
    if reply.reason == "edited":
        return _ENDS["edited"]
    settings = ", ".join(f"{name} {getattr(reply.settings, name)}" for name in reply.settings.active())
    parts = [f"{len(reply.tokens)} tokens", f"seed {reply.seed}", settings, _ENDS.get(reply.reason, "")]
    return " · ".join(part for part in parts if part)


# --------------------------------------------------------------------------- translations
def notebook_page(notebook: Notebook) -> Page:
    """Each text and its translation."""
    blocks: list[Block] = []
    for exchange in notebook.exchanges:
        blocks.append(Block("Text", exchange.source))
        told = tuple((token.piece, math.exp(token.logprob)) for token in _tokens(exchange))
        turned = tuple(mark for line in exchange.tokens for mark in _turned(exchange, line))
        note = translated_how(exchange)
        blocks.append(Block(exchange.model or "Translation", exchange.text, note, told, turned))
    return Page(notebook.title or "Translations", "", tuple(blocks))


def notebook_json(notebook: Notebook) -> bytes:
    """Pairs for other programs, and everything that is known of them."""
    pairs = [{"source": one.source, "target": one.text} for one in notebook.exchanges]
    whole = {"title": notebook.title, "pairs": pairs, "notebook": notebook}
    return msgspec.json.format(msgspec.json.encode(whole), indent=1)


def _tokens(exchange: Exchange) -> list[protocol.Token]:
    """Those of one line; of several, the lines are shown as they are."""
    return exchange.tokens[0] if len(exchange.tokens) == 1 else []


def _turned(exchange: Exchange, line: Sequence[protocol.Token]) -> tuple[str, ...]:
    text = "".join(token.piece for token in line)
    return told_with_places(exchange.decoding.settings, of_tokens(line), text)


def translated_how(exchange: Exchange) -> str:
    """Method, seed, settings that are not neutral, and how it ended."""
    parts = [f"{exchange.n_tokens} tokens", how_decoded(exchange.decoding)]
    parts.append("stopped" if exchange.cancelled else "broken off" if exchange.problem else "")
    return " · ".join(part for part in parts if part)


def how_decoded(decoding: Decoding) -> str:
    if decoding.method == "beam":
        return f"beam {decoding.beam_width}"
    settings = ", ".join(f"{name} {getattr(decoding.settings, name)}" for name in decoding.settings.active())
    return " · ".join(part for part in (f"seed {decoding.seed}", settings) if part)
