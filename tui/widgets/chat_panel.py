"""What a conversation is held under, and how full its context is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tfm.tui.widgets.cells import Row, Span, spread, width
from tfm.tui.widgets.lines import Lines

_LABEL = 9


class ChatFacts(NamedTuple):
    """All that the panel shows."""

    used: int = 0  # tokens: the prompt of the last reply and the reply
    context: int = 0  # tokens the model takes; 0: no model yet
    n_dropped: int = 0  # turns that did not fit
    system: str = ""
    max_tokens: int = 0
    n_replies: int = 1
    stop: tuple[str, ...] = ()


class ChatPanel(Lines):
    """One row a fact, the key that changes it at the end."""

    facts = ChatFacts()

    def tell(self, facts: ChatFacts) -> None:
        self.facts = facts
        self.repaint()

    def build(self, columns: int) -> Sequence[Sequence[Span]]:
        facts = self.facts
        stop = " ".join(repr(text) for text in facts.stop)
        key = self.keys_of_now.name
        set_up = key("chat.setup")
        many = f"{facts.n_replies} at once" if facts.n_replies > 1 else "one"
        return [
            self._filling(columns),
            _row(
                "system", " ".join(facts.system.split()) or "none", not facts.system.strip(), set_up, columns
            ),
            _row("reply", f"up to {facts.max_tokens:,} tokens", True, set_up, columns),
            _row("stop at", stop or "its own end", not stop, set_up, columns),
            _row("replies", many, facts.n_replies == 1, f"{key('chat.fewer')} {key('chat.more')}", columns),
        ]

    def _filling(self, columns: int) -> Row:
        facts = self.facts
        if not facts.context:
            return (("context  ", "dim"),)
        share = min(facts.used / facts.context, 1.0)
        left: list[Span] = [("context  ", "dim"), (f"{facts.used:,} of {facts.context:,} ", "")]
        right: Row = ((f" {share:.0%}", "dim"),)
        if facts.n_dropped:
            right = ((f" {facts.n_dropped} left out", "live"),)
        room = min(columns - width(tuple(left)) - width(right), 20)
        if room >= 4:
            full = round(share * room)
            left += [("━" * full, "live" if share > 0.8 else "second"), ("─" * (room - full), "line")]
        return spread(tuple(left), right, columns)


def _row(label: str, value: str, usual: bool, keys: str, columns: int) -> Row:
    left: Row = ((f"{label:<{_LABEL}}", "dim"), (value, "dim" if usual else ""))
    return spread(left, ((f" {keys}", "key"),), columns)


class Versions(Lines):
    """The versions of the chosen turn, the one on the screen marked; as they grow."""

    versions: Sequence[tuple[str, str]] = ()  # how each is called, how it reads so far
    shown = 0

    def build(self, columns: int) -> Sequence[Sequence[Span]]:
        if len(self.versions) < 2:
            key = self.keys_of_now.name
            hints = (
                f"{key('chat.again')} writes another reply,",
                f"{key('chat.more')} several at once to pick from.",
            )
            return [((hint, "faint"),) for hint in hints]
        rows: list[Row] = []
        for index, (name, text) in enumerate(self.versions):
            here = index == self.shown
            head: Row = (("▸ " if here else "  ", "live"), (f"{index + 1} ", "key"), (name, "dim"))
            body = " ".join(text.split()) or "…"
            rows += [head, (("    ", ""), (body, "" if here else "dim"))]
        per_screen = max(1, self.size.height // 2)
        first = max(0, min(self.shown - per_screen // 2, len(self.versions) - per_screen))
        return rows[2 * first :]
