"""A conversation as a tree: every turn keeps all its versions, and nothing that was said is lost.

Editing a turn, writing a reply anew and asking for several replies all do the same: they add a sibling,
and show that one. What followed the other versions stays with them. Pure data, no widgets.
"""

from __future__ import annotations

import itertools
from typing import Literal

import msgspec

from tfm.core.sampling.settings import NEUTRAL, SamplingSettings
from tfm.tui.marks import Mark, in_force

Role = Literal["user", "assistant"]
TOP = -1  # the parent of first turns
CUT = ("length", "cancelled", "stop", "lost", "edited")  # a reply that ended so can be gone on with
MAX_TITLE = 48  # characters


def shortened(text: str) -> str:
    """A text as the title of something: on one line, cut where it is long."""
    words = " ".join(text.split())
    return words if len(words) <= MAX_TITLE else words[: MAX_TITLE - 1] + "…"


class Turn(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one side said, in one version. A reply also says how it was made."""

    role: Role
    text: str = ""
    parent: int = TOP
    shown: int = -1  # the one of its successors that is on the screen
    # replies only
    model: str = ""
    seed: int = 0
    settings: SamplingSettings = NEUTRAL  # that it was begun with
    marks: tuple[Mark, ...] = ()  # where that changed
    tokens: tuple[int, ...] = ()  # as drawn, the one that ended it included
    reason: str = ""  # eos, length, stop, cancelled, lost, edited; empty while it is being written
    n_prompt: int = 0  # tokens before it
    dropped: tuple[int, ...] = ()  # turns that the context had no room for

    @property
    def can_go_on(self) -> bool:
        """Was it cut, so that it can be continued?"""
        return self.role == "assistant" and self.reason in CUT and bool(self.text.strip() or self.tokens)

    @property
    def settings_now(self) -> SamplingSettings:
        """What its newest token was drawn under, and the next one will be."""
        return in_force(self.settings, self.marks)


class Conversation(msgspec.Struct, kw_only=True):
    """All turns of a conversation, in the order in which they were made, and what it is held under."""

    format: Literal["tfm-chat"] = "tfm-chat"
    version: int = 1
    key: str = ""  # its file's name
    name: str = ""  # given by a person
    started: float = 0.0  # seconds since the epoch
    system: str = ""
    stop: tuple[str, ...] = ()
    max_tokens: int = 512  # of one reply
    n_replies: int = 1  # made at once
    settings: SamplingSettings | None = None  # the knobs as they were left
    seed: int = 1
    draft: str = ""  # the message that is being written
    turns: list[Turn] = []
    shown: int = -1  # the first turn that is on the screen

    def __post_init__(self) -> None:
        """Raises ValueError where a file's turns do not form a tree."""
        for number, turn in enumerate(self.turns):
            if not TOP <= turn.parent < number:
                raise ValueError(f"turn {number} has no turn before it")
        for parent in range(TOP, len(self.turns)):
            shown = self._shown(parent)
            if shown != -1 and not (0 <= shown < len(self.turns) and self.turns[shown].parent == parent):
                raise ValueError(f"turn {parent} is followed by a turn that is not its own")

    # ------------------------------------------------------------------ looking
    @property
    def path(self) -> list[int]:
        """The turns on the screen, from the first one on."""
        path: list[int] = []
        turn = self.shown
        while turn != -1:
            path.append(turn)
            turn = self.turns[turn].shown
        return path

    @property
    def last(self) -> int:
        """The last turn on the screen, or TOP."""
        path = self.path
        return path[-1] if path else TOP

    @property
    def title(self) -> str:
        """Its name, or the first thing that was said, on one line."""
        path = self.path
        return self.name or shortened(self.turns[path[0]].text if path else "")

    @property
    def size(self) -> int:
        """Turns on the screen."""
        return len(self.path)

    @property
    def empty(self) -> bool:
        """Has nothing been said or begun to be said?"""
        return not self.turns and not self.draft.strip()

    def versions(self, turn: int) -> list[int]:
        """The turn and its siblings, oldest first."""
        return self.after(self.turns[turn].parent)

    def after(self, parent: int) -> list[int]:
        """All versions of what follows a turn."""
        return [number for number, turn in enumerate(self.turns) if turn.parent == parent]

    def before(self, turn: int) -> list[int]:
        """The turns that lead to this one, itself left out."""
        path: list[int] = []
        parent = self.turns[turn].parent
        while parent != TOP:
            path.append(parent)
            parent = self.turns[parent].parent
        return path[::-1]

    def messages(self, until: int) -> tuple[dict[str, str], ...]:
        """What the model is told: the system prompt and all turns up to this one, itself included."""
        told = [{"role": "system", "content": self.system}] if self.system.strip() else []
        for number in [*self.before(until), until] if until != TOP else []:
            told.append({"role": self.turns[number].role, "content": self.turns[number].text})
        return tuple(told)

    def turn_of_message(self, index: int, until: int) -> int | None:
        """The turn that ``messages(until)[index]`` is; None: the system prompt."""
        path = [*self.before(until), until]
        index -= 1 if self.system.strip() else 0
        return path[index] if 0 <= index < len(path) else None

    # ------------------------------------------------------------------ changing
    def add(self, turn: Turn) -> int:
        """Put a turn behind its parent and show it; its number."""
        self.turns.append(turn)
        number = len(self.turns) - 1
        self.show(number)
        return number

    def show(self, turn: int) -> None:
        """Put this version on the screen, with what followed it."""
        self._set_shown(self.turns[turn].parent, turn)

    def step(self, turn: int, by: int) -> int:
        """Show the version ``by`` places on from this one; its number."""
        versions = self.versions(turn)
        index = min(max(versions.index(turn) + by, 0), len(versions) - 1)
        self.show(versions[index])
        return versions[index]

    def edit(self, turn: int, text: str) -> int:
        """Another version of a turn, in other words; its number. The old one stays."""
        old = self.turns[turn]
        if text == old.text:
            return turn
        new = Turn(role=old.role, text=text, parent=old.parent)
        if old.role == "assistant":
            new.model, new.reason = old.model, "edited"
        return self.add(new)

    def copy(self, turn: int) -> int:
        """A version with the same words and nothing behind it, to go on with; its number."""
        return self.add(msgspec.structs.replace(self.turns[turn], shown=-1))

    def remove_last(self) -> None:
        """Take out the turn that was added last; the version before it is shown again."""
        number = len(self.turns) - 1
        parent = self.turns.pop().parent
        left = self.after(parent)
        if self._shown(parent) == number:
            self._set_shown(parent, left[-1] if left else -1)

    def new_seeds(self, parent: int, settings: SamplingSettings, n: int) -> list[int]:
        """Seeds from the chosen one on that no reply to this turn has had with these settings."""
        replies = [self.turns[reply] for reply in self.after(parent)]
        used = {reply.seed for reply in replies if reply.settings == settings and reply.reason != "edited"}
        free = (seed for seed in itertools.count(self.seed) if seed not in used)
        return list(itertools.islice(free, n))

    def _shown(self, parent: int) -> int:
        return self.shown if parent == TOP else self.turns[parent].shown

    def _set_shown(self, parent: int, turn: int) -> None:
        if parent == TOP:
            self.shown = turn
        else:
            self.turns[parent].shown = turn


class ConversationHead(msgspec.Struct):
    """As much of a conversation's file as a list needs."""

    name: str = ""
    turns: list[Turn] = []
    shown: int = -1

    @property
    def title(self) -> str:
        return self._whole.title

    @property
    def size(self) -> int:
        return self._whole.size

    @property
    def _whole(self) -> Conversation:
        return Conversation(name=self.name, turns=self.turns, shown=self.shown)
