"""Replies that are being written: the lanes of one request, and what becomes of each. No widgets."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence

import msgspec

from tfm.core.engine import protocol
from tfm.tui.conversation import TOP, Conversation, Turn
from tfm.tui.marks import Mark, in_force, meaning
from tfm.tui.widgets.sampling_panel import Decoding
from tfm.tui.widgets.token_panel import ranked

N_TOP = 8  # rivals that are asked for with each token
Heard = dict[int, list[protocol.Token]]
"""By turn: its tokens as they came, as far as this session has seen them."""


class Replies:
    """One Generate request: a lane for each of ``turns``, which are in the conversation already.

    It ends by itself, is stopped, or breaks off; :meth:`close` settles all lanes that did not end.
    """

    def __init__(self, conversation: Conversation, turns: Sequence[int], heard: Heard, parent: int) -> None:
        self.conversation = conversation
        self.turns = list(turns)
        self.parent = parent  # the turn that they reply to
        self.heard = heard
        self.rate = 0.0
        self.problem = ""
        self.ended = False
        self.n_new = 0
        self._first = self._last = 0.0
        self._in_words: set[int] = set()  # turns that were begun in words: their tokens are known at the end
        for turn in turns:
            heard.setdefault(turn, [])
            conversation.turns[turn].reason = ""

    def request(self, model: protocol.ModelLoaded) -> protocol.Generate:
        """What the engine is asked. A reply that was begun goes on from its tokens, or from its words."""
        talk = self.conversation
        lanes = []
        for number in self.turns:
            turn = talk.turns[number]
            turn.model = model.info.name
            if turn.text and not turn.tokens:
                self._in_words.add(number)
            until = number if number in self._in_words else self.parent
            lanes.append(
                protocol.Lane(
                    prompt="",
                    messages=talk.messages(until),
                    settings=turn.settings_now,
                    seed=turn.seed,
                    prefix=turn.tokens,
                )
            )
        longest = max(1, min(talk.max_tokens, model.info.max_positions - 1))
        return protocol.Generate(
            id=0, model=model.info.name, lanes=tuple(lanes), max_tokens=longest, stop=talk.stop, n_top=N_TOP
        )

    def apply(self, event: protocol.Event) -> int | None:
        """Take in an event; the turn that it belongs to, where it belongs to one."""
        match event:
            case protocol.Token():
                number = self.turns[event.lane]
                turn = self.conversation.turns[number]
                self.heard[number].append(event)
                if event.settings is not None:
                    mark = Mark(at=event.position, char=len(turn.text), settings=event.settings)
                    turn.marks = (*(m for m in turn.marks if m.at != mark.at), mark)
                turn.text += event.piece
                turn.tokens = (*turn.tokens, event.token)
                self._count()
                return number
            case protocol.LaneDone():
                number = self.turns[event.lane]
                turn = self.conversation.turns[number]
                turn.text, turn.tokens, turn.reason = event.text, event.tokens, event.reason
                turn.n_prompt = event.n_prompt
                turn.dropped = tuple(
                    dropped
                    for index in event.dropped_turns
                    if (dropped := self.conversation.turn_of_message(index, self.parent)) is not None
                )
                return number
            case protocol.Done():
                self.rate = event.tokens_per_second or self.rate
        return None

    def close(self, problem: str = "") -> None:
        """Nothing more comes. Lanes that were going on were broken off; those that wrote nothing are
        taken out of the conversation again, so that asking once more is as if it had not been tried."""
        if self.ended:
            return
        self.ended, self.problem = True, problem
        talk = self.conversation
        for number in self.turns:
            turn = talk.turns[number]
            if not turn.reason:
                turn.reason = "lost"
                turn.tokens = () if number in self._in_words else turn.tokens
        while self.turns and self.turns[-1] == len(talk.turns) - 1 and _empty(talk.turns[self.turns[-1]]):
            self.heard.pop(self.turns[-1], None)
            talk.remove_last()
            self.turns.pop()

    def _count(self) -> None:
        self.n_new += 1
        self._last = time.monotonic()
        self._first = self._first or self._last
        if self.n_new > 1 and self._last > self._first:
            self.rate = (self.n_new - 1) / (self._last - self._first)


def _empty(turn: Turn) -> bool:
    return turn.reason in ("lost", "cancelled") and not turn.text and not turn.tokens


# --------------------------------------------------------------------------- ways to begin
def reply(talk: Conversation, parent: int, decoding: Decoding, heard: Heard) -> Replies:
    """As many replies to a turn as the conversation wants, each with its own seed; the first is shown."""
    numbers = [
        talk.add(Turn(role="assistant", parent=parent, seed=seed, settings=decoding.settings))
        for seed in talk.new_seeds(parent, decoding.settings, max(talk.n_replies, 1))
    ]
    talk.show(numbers[0])
    return Replies(talk, numbers, heard, parent)


def go_on(talk: Conversation, number: int, decoding: Decoding, heard: Heard) -> Replies:
    """Go on with a reply that was cut: the same turn where nothing follows it, else a copy."""
    if talk.after(number):
        tokens = list(heard.get(number, []))
        number = talk.copy(number)
        heard[number] = tokens
    turn = talk.turns[number]
    turn.marks = tuple(mark for mark in turn.marks if mark.at < len(turn.tokens))
    if not turn.tokens:  # begun in words, by a person
        turn.settings, turn.marks = decoding.settings, ()
    elif turn.settings_now != decoding.settings:
        mark = Mark(at=len(turn.tokens), char=len(turn.text), settings=decoding.settings)
        turn.marks = (*turn.marks, mark)
    return Replies(talk, [number], heard, turn.parent)


def take(talk: Conversation, number: int, index: int, rank: int, decoding: Decoding, heard: Heard) -> Replies:
    """Another version of a reply: the same up to its ``index``-th token heard, then the rival of that
    rank (from 1), then whatever comes of it.

    Raises:
        ValueError: there is no such rival.
    """
    tokens = heard[number]
    token = tokens[index]
    rivals = ranked(token)
    if not 1 <= rank <= len(rivals):
        raise ValueError(f"This token has {len(rivals)} candidates to take.")
    rival = rivals[rank - 1]
    old = talk.turns[number]
    put = msgspec.structs.replace(
        token,
        token=rival.token,
        piece=rival.piece,
        logprob=math.log(max(rival.raw, 1e-38)),
        probability=rival.final,
        settings_mark=False,
        settings=None,
    )
    kept = [*tokens[:index], put]
    prefix = (*old.tokens[: token.position], rival.token)
    before = unheard(old, tokens) + "".join(one.piece for one in tokens[:index])
    marks = tuple(mark for mark in old.marks if mark.at < token.position)
    other = decoding.settings if decoding.settings != in_force(old.settings, marks) else None
    mark = Mark(at=token.position, char=len(before), settings=other, by_hand=True)
    new = talk.add(
        Turn(
            role="assistant",
            text=before + rival.piece,
            parent=old.parent,
            model=old.model,
            seed=old.seed,
            settings=old.settings,
            marks=(*marks, mark),
            tokens=prefix,
        )
    )
    heard[new] = kept
    return Replies(talk, [new], heard, old.parent)


def unheard(turn: Turn, tokens: Sequence[protocol.Token]) -> str:
    """The beginning of a turn's text that was there before the tokens that were heard."""
    heard = "".join(token.piece for token in tokens)
    return turn.text[: turn.text.rfind(heard)] if heard and heard in turn.text else ""


def pieces(turn: Turn, tokens: Sequence[protocol.Token]) -> tuple[list[str], int]:
    """A turn's text in pieces, and which of them is the first that is a token that was heard: each has a
    piece of its own. What was there before is cut only at its marks."""
    told = [token.piece for token in tokens]
    heard = "".join(told)
    start = turn.text.rfind(heard) if heard else -1
    if start < 0:
        told, start = [], len(turn.text)
    elif told:
        told[-1] += turn.text[start + len(heard) :]
    cuts = sorted({0, start, *(mark.char for mark in turn.marks if mark.char < start)})
    before = [turn.text[a:b] for a, b in itertools.pairwise(cuts)]
    return [*before, *told], len(before)


def marked(turn: Turn, tokens: Sequence[protocol.Token]) -> dict[int, int]:
    """Which of a turn's :func:`pieces` have which of its marks: number of the mark by that of the piece."""
    told, n_before = pieces(turn, tokens)
    starts = list(itertools.accumulate((len(piece) for piece in told[:n_before]), initial=0))[:n_before]
    found: dict[int, int] = {}
    for number, mark in enumerate(turn.marks):
        index = mark.at - tokens[0].position + n_before if len(told) > n_before else -1
        if n_before <= index < len(told):
            found[index] = number
        elif mark.char in starts:
            found[starts.index(mark.char)] = number
    return found


def mark_text(turn: Turn, tokens: Sequence[protocol.Token], piece: int) -> str:
    """What the mark at one of a turn's pieces says; empty where it has none."""
    number = marked(turn, tokens).get(piece)
    return meaning(turn.settings, turn.marks, number) if number is not None else ""


def parent_of_reply(talk: Conversation, number: int) -> int:
    """The turn that a version of a reply, chosen or last, replies to; TOP: there is none."""
    if number == TOP:
        return TOP
    turn = talk.turns[number]
    return number if turn.role == "user" else turn.parent
