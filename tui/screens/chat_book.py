"""ChatBook: which conversation it is, what it is held under, where it is kept."""

from __future__ import annotations

import asyncio

from textual import work

from tfm.core.engine import protocol
from tfm.tui.client import EngineProblem, Stream
from tfm.tui.screens import chat_view
from tfm.tui.screens.chat_frame import ChatFrame
from tfm.tui.screens.chat_setup import Setup, SetupScreen

MAX_REPLIES = 16


class ChatBook(ChatFrame):
    """The actions that are about the conversation as a whole."""

    def action_replies(self, by: int) -> None:
        self.talk.n_replies = min(max(self.talk.n_replies + by, 1), MAX_REPLIES)
        self.changed()
        self.show_frame()

    def action_setup(self) -> None:
        def done(setup: Setup | None) -> None:
            if setup is not None:
                self.talk.system, self.talk.stop, self.talk.max_tokens = setup
                self.changed()
                self.show_frame()

        now = Setup(self.talk.system, self.talk.stop, self.talk.max_tokens)
        self.app.push_screen(SetupScreen(now), done)

    async def action_recall(self, by: int) -> None:
        """The conversation ``by`` places further back."""
        if self.busy():
            return
        await self.keeper.save()
        keys = await asyncio.to_thread(self.keeper.store.keys)
        index = (keys.index(self.talk.key) if self.talk.key in keys else -1) + by
        if 0 <= index < len(keys):
            await self.open_session(keys[index])
        elif by < 0 and self.path:
            await self.action_new_session()

    # ------------------------------------------------------------------ the suggested model
    def action_pull(self) -> None:
        if self.pulling:
            self.notify(self.told("SmolLM2 is on its way: {chat.stop} stops it."), markup=False)
        elif not chat_view.offers(self.session.models):
            self.notify(
                self.told("There is a model to chat with: {app.model} chooses among them."), markup=False
            )
        else:
            self._pull()

    @work(group="pull")
    async def _pull(self) -> None:
        self._progress("starting")
        stream: Stream | None = None
        try:
            message = protocol.ModelsPull(id=0, name=chat_view.SUGGESTED)
            stream = await self.session.client.request(message)
            async for event in stream:
                if isinstance(event, protocol.LoadProgress):
                    self._progress(f"{event.stage} {event.fraction:.0%}")
                elif isinstance(event, protocol.ModelPulled):
                    self._progress("loading")
                    await self.session.list_models()
                    await self.session.choose(event.info.name)
        except EngineProblem as error:
            self.notify(str(error), severity="error", markup=False, timeout=15)
        finally:
            if self.standing:
                self._progress("")
            if stream is not None and not stream.ended:
                await asyncio.shield(stream.cancel())

    def _progress(self, text: str) -> None:
        self.pulling = text
        self.say(f"SmolLM2: {text}" if text else "")
        self.show_frame()
        self.refresh_keys()
