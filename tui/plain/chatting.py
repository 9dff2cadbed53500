"""Chat: a line is what one says, and the reply is said. The conversation is the app's own and kept as one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tfm.core.engine import protocol
from tfm.core.sampling.settings import PRESETS
from tfm.tui import replies
from tfm.tui.client import EngineProblem, Stream
from tfm.tui.conversation import TOP, Conversation, Turn
from tfm.tui.export import Page, chat_json, chat_page
from tfm.tui.plain.commands import command, number
from tfm.tui.plain.kept import KeptPart
from tfm.tui.plain.part import number_of_token
from tfm.tui.replies import Heard, Replies
from tfm.tui.session import short_name
from tfm.tui.widgets.sampling_panel import Decoding
from tfm.tui.works import chats

if TYPE_CHECKING:
    from tfm.tui.plain.dialogue import Dialogue

MAX_REPLIES = 16
_ENDS = {"length": "It was cut: /continue goes on.", "cancelled": "Stopped: /continue goes on.",
         "lost": "It was broken off: /continue goes on.", "stop": "Ended by a stop string."}  # fmt: skip


class Chatting(KeptPart[Conversation]):
    NAME = "chat"
    DOES = "Type a message and Enter to get a reply."

    def __init__(self, dialogue: Dialogue) -> None:
        super().__init__(dialogue, Decoding(settings=PRESETS["chat"]), chats())
        self.work = Conversation()
        self.heard: Heard = {}
        self.writing: Replies | None = None

    @property
    def talk(self) -> Conversation:
        return self.work

    def fresh(self) -> Conversation:
        kept = {name: getattr(self.talk, name) for name in ("system", "stop", "max_tokens", "n_replies")}
        return Conversation(settings=self.talk.settings, seed=self.talk.seed, **kept)

    def use(self, work: Conversation) -> None:
        assert self.decoding is not None
        super().use(work)
        self.heard.clear()
        self.decoding = Decoding(settings=work.settings or self.decoding.settings, seed=work.seed)

    def written(self) -> tuple[Page, Callable[[], bytes]]:
        return chat_page(self.talk, self.heard), lambda: chat_json(self.talk)

    def close(self) -> None:
        if self.writing is not None:
            self.writing.close()
            self.keeper.changed(self.talk)
        super().close()

    # ------------------------------------------------------------------ talking
    async def take(self, text: str) -> None:
        last = self.talk.last
        self.talk.started = self.talk.started or time.time()
        if last != TOP and self.talk.turns[last].role == "user":  # it never got a reply
            parent = self.talk.edit(last, text)
        else:
            parent = self.talk.add(Turn(role="user", text=text, parent=last))
        await self._reply_to(parent)

    async def _reply_to(self, parent: int) -> None:
        assert self.decoding is not None
        await self._write(replies.reply(self.talk, parent, self.decoding, self.heard))

    async def _write(self, writing: Replies) -> None:
        """Have replies written: one is said as it comes, several one after the other when they are done."""
        self.writing = writing
        alone = len(writing.turns) == 1
        stream: Stream | None = None
        problem = ""
        self._changed()
        try:
            model = await self.session.ready()
            stream = await self.open(writing.request(model))
            async for event in stream:
                writing.apply(event)
                if alone and isinstance(event, protocol.Token):
                    self.speaker.stream(event.piece)
        except EngineProblem as error:
            problem = str(error)
            raise
        finally:
            turns = list(writing.turns)
            writing.close(problem)
            self.writing = None
            self.speaker.end()
            if stream is not None:
                await self.settle(stream)
            self._changed()
            await self.keeper.save()
            if alone and turns[0] < len(self.talk.turns):
                self._say_end(turns[0])
        if alone:
            return
        written = [turn for turn in turns if turn < len(self.talk.turns)]
        for place, turn in enumerate(written, 1):
            self.speaker.note(f"Reply {place} of {len(written)}, seed {self.talk.turns[turn].seed}:")
            self.speaker.say(self.talk.turns[turn].text)
        if len(written) > 1:
            self.speaker.note("The first stands; /version N takes another one.")

    def _say_end(self, turn: int) -> None:
        if self.talk.turns[turn].reason in _ENDS and self.speaker.by_hand:
            self.speaker.note(_ENDS[self.talk.turns[turn].reason])

    def _changed(self) -> None:
        assert self.decoding is not None
        self.talk.settings, self.talk.seed = self.decoding.settings, self.decoding.seed
        self.keeper.changed(self.talk)

    @command("again", help="Another reply to the same message; the others stay.")
    async def again(self, _text: str) -> None:
        parent = replies.parent_of_reply(self.talk, self.talk.last)
        if parent == TOP:
            raise ValueError("There is nothing to reply to yet.")
        await self._reply_to(parent)

    @command("continue", help="Go on with a reply that was cut, stopped, broken off or edited.")
    async def go_on(self, _text: str) -> None:
        last = self.talk.last
        if last == TOP or not self.talk.turns[last].can_go_on:
            raise ValueError("There is no reply that was cut: /again writes another one.")
        assert self.decoding is not None
        await self._write(replies.go_on(self.talk, last, self.decoding, self.heard))

    # ------------------------------------------------------------------ turns
    @command("turns", help="The conversation so far, each turn with its number.")
    async def turns(self, _text: str) -> None:
        for place, turn in enumerate(self.talk.path, 1):
            one = self.talk.turns[turn]
            versions = self.talk.versions(turn)
            which = f", version {versions.index(turn) + 1} of {len(versions)}" if len(versions) > 1 else ""
            who = "you" if one.role == "user" else (short_name(one.model) or "the model")
            self.speaker.say(f"{place}, {who}{which}: {one.text}")
        if not self.talk.path:
            self.speaker.note("Nothing was said yet.")

    @command("edit", arguments="TURN TEXT", help="Say a turn in other words; the old version stays.")
    async def edit(self, text: str) -> None:
        place, _, words = text.partition(" ")
        turn = self._turn(place)
        if not words.strip():
            raise ValueError("A turn cannot be empty: /edit TURN TEXT.")
        new = self.talk.edit(turn, words.strip())
        self._changed()
        if self.talk.turns[new].role == "user":
            await self._reply_to(new)
        else:
            await self.keeper.save()
            self.speaker.note("Changed; /continue lets the model go on from here.")

    @command(
        "version", arguments="[N] [TURN]", help="The versions of a turn (the last one); N takes that one."
    )
    async def version(self, text: str) -> None:
        words = text.split()
        several = [turn for turn in self.talk.path if len(self.talk.versions(turn)) > 1]
        turn = self._turn(words[1]) if len(words) > 1 else (several[-1] if several else self.talk.last)
        if turn == TOP:
            raise ValueError("Nothing was said yet.")
        versions = self.talk.versions(turn)
        if not words:
            for place, one in enumerate(versions, 1):
                stands = " (stands)" if one == turn else ""
                self.speaker.say(f"{place}{stands}: {self.talk.turns[one].text}")
            return
        self.talk.show(versions[number(words[0], "A version", 1, len(versions)) - 1])
        self._changed()
        await self.keeper.save()
        self.speaker.say(self.talk.turns[self.talk.last].text)

    def _turn(self, text: str) -> int:
        path = self.talk.path
        if not path:
            raise ValueError("Nothing was said yet.")
        return path[number(text, "A turn", 1, len(path)) - 1]

    # ------------------------------------------------------------------ tokens
    @property
    def _tokens(self) -> list[protocol.Token]:
        return self.heard.get(self.talk.last, [])

    @command("tokens", help="The tokens of the last reply, and how likely each was.")
    async def tokens(self, _text: str) -> None:
        self.say_tokens(self._tokens)

    @command("rivals", arguments="[TOKEN]", help="What could have stood in a token's place.")
    async def rivals(self, text: str) -> None:
        self.say_rivals(self._tokens, text)

    @command(
        "take", arguments="TOKEN RANK", help="Branch off: that rival in a token's place, and on from there."
    )
    async def take_rival(self, text: str) -> None:
        assert self.decoding is not None
        token, _, rank = text.partition(" ")
        place = number_of_token(self._tokens, token)
        writing = replies.take(
            self.talk, self.talk.last, place - 1, number(rank.strip(), "A rank"), self.decoding, self.heard
        )
        self.speaker.stream(self.talk.turns[writing.turns[0]].text)
        await self._write(writing)

    # ------------------------------------------------------------------ the conversation
    @command("system", arguments="[TEXT]", help="What the model is told first; alone: what that is.")
    async def system(self, text: str) -> None:
        if text:
            self.talk.system = text
            self._changed()
        self.speaker.note(self.talk.system or "The model is told nothing first.")

    @command(
        "ends", arguments="[TEXT | TEXT ...]", help="Strings that end a reply; - for none; alone: which."
    )
    async def ends(self, text: str) -> None:
        if text:
            parts = [part.strip() for part in text.split("|")]
            self.talk.stop = () if text == "-" else tuple(part for part in parts if part)
            self._changed()
        self.speaker.note(", ".join(self.talk.stop) or "No string ends a reply.")

    @command("longest", arguments="N", help="The most tokens that a reply may have.")
    async def longest(self, text: str) -> None:
        self.talk.max_tokens = number(text, "The longest reply", 1, 100_000)
        self._changed()
        self.speaker.note(f"A reply has at most {self.talk.max_tokens:,} tokens.")

    @command("replies", arguments="N", help="How many replies are written at once.")
    async def replies(self, text: str) -> None:
        self.talk.n_replies = number(text, "The number of replies", 1, MAX_REPLIES)
        self._changed()
        self.speaker.note(f"{self.talk.n_replies} replies at once.")
