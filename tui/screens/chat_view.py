"""What the chat's widgets are told about a conversation. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from tfm.core.engine import protocol
from tfm.tui import confidence
from tfm.tui.conversation import Conversation, Turn
from tfm.tui.replies import Heard, marked, pieces
from tfm.tui.session import short_name
from tfm.tui.widgets.chat_panel import ChatFacts
from tfm.tui.widgets.transcript import TurnView

SUGGESTED = "smollm2"  # what `tfm-tui pull` calls it
_ENDS = {
    "length": "cut",
    "cancelled": "stopped",
    "stop": "stop string",
    "lost": "broken off",
    "edited": "edited",
}
_OFFER = (
    "{chat.pull} fetches SmolLM2, 135 M parameters, for a conversation worth the name (93 MB, Apache-2.0)."
)
_BY_HAND = "In a shell: tfm-tui pull smollm2"


def turn_views(talk: Conversation, heard: Heard, writing: Sequence[int]) -> list[TurnView]:
    """The turns on the screen; ``writing`` are those that are being written."""
    path = talk.path
    out = dropped(talk, path)
    return [_view(talk, number, heard.get(number, []), number in writing, number in out) for number in path]


def _view(
    talk: Conversation, number: int, tokens: Sequence[protocol.Token], live: bool, left_out: bool
) -> TurnView:
    turn = talk.turns[number]
    told, n_before = pieces(turn, tokens)
    marks = frozenset(marked(turn, tokens))
    first = n_before
    if any(mark < n_before for mark in marks):  # what was not heard can be walked through by its marks
        first = min(marks)
    return TurnView(
        label="you" if turn.role == "user" else (short_name(turn.model) or "the model"),
        pieces=tuple(told),
        note=note(talk, number, live, left_out),
        marks=marks,
        looks=tuple(
            (n_before + n, look) for n, token in enumerate(tokens) if (look := confidence.look(token.logprob))
        ),
        live=live,
        left_out=left_out,
        first=first,
    )


def note(talk: Conversation, number: int, live: bool, left_out: bool) -> str:
    """What the right end of a turn's rule says."""
    turn = talk.turns[number]
    versions = talk.versions(number)
    parts = [f"{versions.index(number) + 1} of {len(versions)}"] if len(versions) > 1 else []
    if left_out:
        parts.append("left out: the context is full")
    elif turn.role == "assistant" and not live:
        parts.append(_ENDS.get(turn.reason, ""))
        parts.append(f"{len(turn.tokens)} tokens" if turn.tokens else "")
    return " · ".join(part for part in parts if part)


def dropped(talk: Conversation, path: Sequence[int]) -> frozenset[int]:
    """The turns that the last reply was written without."""
    for number in reversed(path):
        if talk.turns[number].role == "assistant" and talk.turns[number].n_prompt:
            return frozenset(talk.turns[number].dropped)
    return frozenset()


def facts(talk: Conversation, context: int) -> ChatFacts:
    path = talk.path
    used = 0
    for number in path:
        turn = talk.turns[number]
        if turn.role == "assistant":
            used = (turn.n_prompt or used) + len(turn.tokens)
    used = min(used, context or used)  # the last token of a full context is drawn and never read
    return ChatFacts(
        used=used,
        context=context,
        n_dropped=len(dropped(talk, path)),
        system=talk.system,
        max_tokens=talk.max_tokens,
        n_replies=talk.n_replies,
        stop=talk.stop,
    )


def version_list(talk: Conversation, number: int) -> list[tuple[str, str]]:
    """How each version of a turn is called, and how it reads."""
    return [(_version_name(talk.turns[one]), talk.turns[one].text) for one in talk.versions(number)]


def _version_name(turn: Turn) -> str:
    if turn.role == "user":
        return "you"
    parts = [
        short_name(turn.model),
        f"seed {turn.seed}" if turn.reason != "edited" else "",
        _ENDS.get(turn.reason, ""),
    ]
    return " · ".join(part for part in parts if part)


def welcome(
    info: protocol.ModelInfo | None, problem: str, models: Sequence[protocol.ModelInfo], pulling: str
) -> list[tuple[str, str]]:
    """What stands in an empty conversation: paragraphs and their styles."""
    lines: list[tuple[str, str]] = []
    if info is not None:
        lines.append((f"Write a message below: {short_name(info.name)} answers here.", ""))
        lines += [(info.summary, "dim")] if info.summary else []
    elif problem:
        lines.append((problem, "bad"))
    else:
        lines.append(("A conversation with a language model. It is being loaded; you can write already.", ""))
    if pulling:
        lines += [("", ""), (f"SmolLM2: {pulling}", "live")]
    elif offers(models) and (info is not None or problem):
        lines += [("", ""), (_OFFER, "live"), (_BY_HAND, "dim")]
    if info is not None:
        lines += [
            ("", ""),
            ("{chat.turns} goes to the turns: edit them, pick other versions, take other tokens.", "dim"),
            ("All is saved as it grows.", "dim"),
        ]
    return lines


def offers(models: Sequence[protocol.ModelInfo]) -> bool:
    """Is there nothing to chat with but what ships with the app?"""
    return not any(m.chat and m.family == "decoder-only" and m.source != "bundled" for m in models)
