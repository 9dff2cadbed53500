"""Chat: a conversation that streams in, every turn of which can be edited, tried again and gone on from."""

from __future__ import annotations

import asyncio
import time

from textual import on, work

from tfm.core.engine import protocol
from tfm.tui import clipboard, replies
from tfm.tui.client import EngineProblem, Stream
from tfm.tui.conversation import TOP, Turn
from tfm.tui.replies import Replies
from tfm.tui.screens.chat_book import ChatBook
from tfm.tui.widgets.lines import name_box
from tfm.tui.widgets.source_input import PASTE_LIMIT, SourceInput
from tfm.tui.widgets.transcript import Transcript


class ChatScreen(ChatBook):
    """What is said, how it is answered, and what may be done to a turn."""

    # ------------------------------------------------------------------ saying something
    @on(SourceInput.Submitted)
    def _submitted(self, event: SourceInput.Submitted) -> None:
        text = event.text.strip("\n")
        if self.busy():
            return
        if self.editing is not None:
            self._accept_edit(self.editing, text)
            return
        last = self.talk.last
        waiting = last != TOP and self.talk.turns[last].role == "user"  # it never got a reply
        if not text.strip():
            if waiting:
                self._reply_to(last)
            else:
                self.notify("Write something first.", markup=False)
            return
        self.message.clear()
        if waiting:
            self._reply_to(self.talk.edit(last, text))
        else:
            self.talk.started = self.talk.started or time.time()
            self._reply_to(self.talk.add(Turn(role="user", text=text, parent=last)))

    @on(SourceInput.PasteRefused)
    def _paste_refused(self, event: SourceInput.PasteRefused) -> None:
        sentence = f"That paste holds {event.length:,} characters and the message takes {PASTE_LIMIT:,}."
        self.notify(sentence, severity="warning", markup=False)

    def _reply_to(self, parent: int) -> None:
        if self.panel.decoding.settings.temperature == 0 and self.talk.after(parent):
            self.notify("At temperature 0 every reply is the same: T warms it up.", markup=False)
        self._begin(replies.reply(self.talk, parent, self.panel.decoding, self.heard))

    def _begin(self, writing: Replies) -> None:
        self.writing = writing
        self.transcript.choose(None)
        self.transcript.touch(follow=True)
        self._write(writing)

    @work(exclusive=True, group="write")
    async def _write(self, writing: Replies) -> None:
        assert self.figures is not None
        self.figures.resume()
        self.changed()
        self.say("" if self.session.info else "waiting for the model")
        self.show_all()
        stream: Stream | None = None
        problem = ""
        try:
            model = await self.session.ready()
            self.say("")
            self.stream = stream = await self.session.client.request(writing.request(model))
            self.show_all()
            async for events in stream.handfuls():
                if not self.standing:
                    break
                for event in events:
                    self._take(writing, event)
        except EngineProblem as error:
            problem = str(error)
        finally:
            self.stream = None
            self.figures.pause()
            writing.close(problem)
            if self.standing:
                self.say("")
                self.changed()
                self.show_all()
            if problem:
                self.notify(problem, severity="error", markup=False, timeout=15)
            if stream is not None and not stream.ended:  # this worker was cancelled
                await asyncio.shield(stream.cancel())

    def _take(self, writing: Replies, event: protocol.Event) -> None:
        """One event of the engine: into the conversation, and onto the screen."""
        number = writing.apply(event)
        if number is None:
            return
        if isinstance(event, protocol.LaneDone):
            self.changed()
            self.show_all()
        elif isinstance(event, protocol.Token) and number in self.path:
            marks = self.talk.turns[number].marks
            mark = bool(marks) and marks[-1].at == event.position
            self.transcript.append(self.path.index(number), event.piece, mark=mark, logprob=event.logprob)
            self.keeper.changed(self.talk)
            if writing.n_new == 1:
                self.show_figures()

    # ------------------------------------------------------------------ turns
    def action_again(self) -> None:
        parent = replies.parent_of_reply(self.talk, self.chosen)
        if parent == TOP:
            self.notify("There is nothing to reply to yet.", markup=False)
        elif not self.busy():
            self._reply_to(parent)

    def action_go_on(self) -> None:
        number = self.chosen
        if number == TOP or self.busy():
            return
        if not self.talk.turns[number].can_go_on:
            reply = self.talk.turns[number].role == "assistant"
            self.notify(self.told(_ENDED if reply else _OWN), markup=False)
            return
        self._begin(replies.go_on(self.talk, number, self.panel.decoding, self.heard))

    def action_version(self, by: int) -> None:
        number = self.chosen
        if self.typing:  # the last turn of which there are several
            number = next((n for n in reversed(self.path) if len(self.talk.versions(n)) > 1), TOP)
        if number == TOP or len(self.talk.versions(number)) < 2:
            self.notify(
                self.told(
                    "There is one version of this turn: {chat.again} writes another reply, {chat.edit} edits."
                ),
                markup=False,
            )
            return
        index = self.path.index(number)
        self.talk.step(number, by)
        self.changed()
        self.show_all()
        if not self.typing:
            self.transcript.choose(index)

    def action_edit(self) -> None:
        number = self.chosen
        if number == TOP or self.busy():
            return
        self.draft = self.message.text if self.editing is None else self.draft
        self.editing = number
        turn = self.talk.turns[number]
        whose = "your turn" if turn.role == "user" else "the reply"
        keys = self.told("{message.send} accept · {chat.stop} leave")
        name_box(self.message, title=f"Another version of {whose}", subtitle=keys)
        self.fill_in(turn.text)

    def _accept_edit(self, number: int, text: str) -> None:
        if not text.strip():
            self.notify(self.told("A turn cannot be empty: {chat.stop} leaves it as it was."), markup=False)
            return
        new = self.talk.edit(number, text)
        self.leave_edit()
        self.changed()
        if self.talk.turns[new].role == "user":
            self._reply_to(new)
        else:
            self.show_all()
            self.notify(self.told("{chat.continue} lets the model go on from here."), markup=False)

    @on(Transcript.Take)
    def _take_rival(self, event: Transcript.Take) -> None:
        index = self.token_index()
        if self.busy():
            return
        if index is None:
            self.notify("Choose a token of a reply first: ← →.", markup=False)
            return
        try:
            writing = replies.take(self.talk, self.chosen, index, event.rank, self.panel.decoding, self.heard)
        except ValueError as error:
            self.notify(str(error), markup=False)
        else:
            self._begin(writing)

    def action_copy(self) -> None:
        if self.chosen != TOP:
            clipboard.copy(self.app, self.talk.turns[self.chosen].text, "the turn")

    # ------------------------------------------------------------------ focus
    async def action_escape(self) -> None:
        if self.running and self.stream is not None:
            self.say("stopping")
            await self.stream.cancel()
        elif self.running:  # still waiting for the model
            self.workers.cancel_group(self, "write")
        elif self.pulling:
            self.workers.cancel_group(self, "pull")
        elif self.editing is not None:
            self.leave_edit()
        elif self.end_search():
            pass
        elif self.typing:
            self.transcript.focus()
        else:
            self.transcript.choose(None)

    def action_switch_focus(self) -> None:
        self.set_focus(self.transcript if self.message.has_focus else self.message)  # now: letters may follow

    def action_write(self) -> None:
        self.set_focus(self.message)


_ENDED = (
    "This reply was ended by the model itself: {chat.again} writes another, {chat.edit} (after {chat.turns}) "
    "edits it."
)
_OWN = "This turn is yours: {chat.again} writes a reply to it."
