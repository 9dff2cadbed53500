"""Chat: a conversation that streams in, every turn of which can be edited, tried again and gone on from."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.timer import Timer
from textual.widget import Widget

from tfm.core.engine import protocol
from tfm.core.sampling.settings import PRESETS
from tfm.tui import keymap, replies
from tfm.tui.client import EngineProblem, Stream
from tfm.tui.conversation import TOP, Conversation, Turn
from tfm.tui.keeper import Keeper
from tfm.tui.replies import Heard, Replies
from tfm.tui.safe_text import plain
from tfm.tui.screens import chat_view
from tfm.tui.screens.chat_setup import Setup, SetupScreen
from tfm.tui.screens.knob_screen import KnobScreen
from tfm.tui.screens.prompt import Choice, Prompt
from tfm.tui.transcripts import Transcripts, export
from tfm.tui.widgets.chat_panel import ChatPanel, Versions
from tfm.tui.widgets.lines import name_box
from tfm.tui.widgets.message_input import MessageInput
from tfm.tui.widgets.sampling_panel import Decoding, SamplingPanel
from tfm.tui.widgets.source_input import PASTE_LIMIT, SourceInput
from tfm.tui.widgets.token_panel import TokenPanel
from tfm.tui.widgets.transcript import Transcript

FIGURES_HZ = 2  # how often figures follow a running reply; the text itself follows every frame
SAVE_EVERY = 2.0  # seconds
MAX_REPLIES = 16


class ChatScreen(KnobScreen):
    MODE = "chat"
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.CHAT, *keymap.KNOBS]
    AUTO_FOCUS = "#message"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (70, "-normal"), (120, "-wide")]  # from so many cells on
    VERTICAL_BREAKPOINTS = [(0, "-short"), (20, "-medium"), (34, "-tall")]

    def __init__(self) -> None:
        super().__init__()
        self.talk = Conversation()
        self.writing: Replies | None = None
        self.heard: Heard = {}
        self._path: list[int] = []  # the turns on the screen
        self._editing: int | None = None
        self._draft = ""  # what was being written when an edit began
        self._pulling = ""  # how far the fetching of the suggested model is
        self._stream: Stream | None = None
        self._figures: Timer | None = None
        self._keeper = Keeper(Transcripts(), self._complain)

    # ------------------------------------------------------------------ layout
    def body(self) -> Iterable[Widget]:
        with Horizontal(id="chat"):
            with Vertical(id="talk"):
                yield Transcript(id="transcript", classes="box")
                yield MessageInput(
                    id="message", classes="box", soft_wrap=True, compact=True, show_line_numbers=False
                )
            with Vertical(id="side"):
                decoding = Decoding(settings=PRESETS["chat"])
                yield SamplingPanel(decoding, beams=False, id="sampling", classes="box")
                yield ChatPanel(id="facts", classes="box")
                yield Versions(id="versions", classes="box")
        yield TokenPanel(numbered=True, id="candidates")

    def on_mount(self) -> None:
        self.message.cursor_blink = False  # nothing moves unless something happened
        self._figures = self.set_interval(1 / FIGURES_HZ, self._show_figures, pause=True)
        self.set_interval(SAVE_EVERY, self._keeper.save)
        name_box(self.query_one(ChatPanel), title="This chat")
        name_box(self.query_one(Versions), title="Versions")
        self._use(self._keeper.store.latest() or Conversation())

    def on_unmount(self) -> None:
        self._keeper.save_now()

    @property
    def message(self) -> MessageInput:
        return self.query_one(MessageInput)

    @property
    def transcript(self) -> Transcript:
        return self.query_one(Transcript)

    @property
    def running(self) -> bool:
        return self.writing is not None and not self.writing.ended

    @property
    def tunable(self) -> Stream | None:
        return self._stream

    @property
    def chosen(self) -> int:
        """The turn that keys act on: the one that is marked, else the last; TOP: there is none."""
        index = self.transcript.turn
        if index is not None and not self.typing and index < len(self._path):
            return self._path[index]
        return self._path[-1] if self._path else TOP

    def refresh_status(self) -> None:
        super().refresh_status()
        if self.is_mounted:
            self._show_frame()

    # ------------------------------------------------------------------ what is shown
    def _use(self, talk: Conversation) -> None:
        """Put another conversation on the screen."""
        self.talk, self.writing = talk, None
        self.heard.clear()
        self._leave_edit()
        settings = talk.settings or self.panel.decoding.settings
        self.panel.decoding = Decoding(settings=settings, seed=talk.seed)
        self.transcript.choose(None)
        self._show()
        self.transcript.show_end()

    def _show(self) -> None:
        """The turns, laid out anew where they differ, and all that is said about them."""
        self._path = self.talk.path
        writing = self.writing.turns if self.writing is not None and self.running else []
        self.transcript.show(chat_view.turn_views(self.talk, self.heard, writing))
        self._show_frame()
        self._show_figures()
        self.refresh_keys()

    def _show_frame(self) -> None:
        name_box(self.transcript, title=self.talk.title or "New chat")
        info = self.session.info
        hint = chat_view.welcome(info, self.session.problem, self.session.models, self._pulling)
        self.transcript.hint(hint)
        if self._editing is None:
            name_box(self.message, title="Message", subtitle="")
            self.message.placeholder = plain("Write something and press Enter")
        self.query_one(ChatPanel).tell(chat_view.facts(self.talk, info.max_positions if info else 0))

    def _show_figures(self) -> None:
        self._show_token()
        versions = self.query_one(Versions)
        replied = [number for number in self._path if len(self.talk.versions(number)) > 1]
        number = self.chosen if self.chosen in replied else (replied[-1] if replied else TOP)
        versions.versions = chat_view.version_list(self.talk, number) if number != TOP else []
        versions.shown = self.talk.versions(number).index(number) if number != TOP else 0
        versions.repaint()
        info = self.session.info
        self.query_one(ChatPanel).tell(chat_view.facts(self.talk, info.max_positions if info else 0))
        if self.writing is not None:
            self.session.rate(self.writing.rate)

    def _show_token(self) -> None:
        panel = self.query_one(TokenPanel)
        number, index = self.chosen, self._token_index()
        tokens = self.heard.get(number, [])
        token = tokens[index] if index is not None else (tokens[-1] if tokens else None)
        if token is None:
            panel.title("token")
            panel.token(None, "Each token's rivals and their probabilities show here: Tab, then ← →.")
            return
        place = f"token {token.position + 1} of {len(self.talk.turns[number].tokens)}"
        panel.title(f"{place} · log p {token.logprob:.2f} · entropy {token.entropy:.1f}")
        panel.token(token)

    def _token_index(self) -> int | None:
        """Which of the tokens that were heard is marked."""
        number, marked = self.chosen, self.transcript.token
        if marked is None or number == TOP or self.typing:
            return None
        tokens = self.heard.get(number, [])
        index = marked - (len(replies.pieces(self.talk.turns[number], tokens)) - len(tokens))
        return index if 0 <= index < len(tokens) else None

    @on(Transcript.Chosen)
    def _turn_chosen(self) -> None:
        self._show_figures()
        self.refresh_keys()

    # ------------------------------------------------------------------ saying something
    @on(SourceInput.Submitted)
    def _submitted(self, event: SourceInput.Submitted) -> None:
        text = event.text.strip("\n")
        if self._busy():
            return
        if self._editing is not None:
            self._accept_edit(self._editing, text)
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
        assert self._figures is not None
        self._figures.resume()
        self._changed()
        self._say("" if self.session.info else "waiting for the model")
        self._show()
        stream: Stream | None = None
        problem = ""
        try:
            model = await self.session.ready()
            self._say("")
            self._stream = stream = await self.session.client.request(writing.request(model))
            async for event in stream:
                self._take(writing, event)
        except EngineProblem as error:
            problem = str(error)
        finally:
            self._stream = None
            self._figures.pause()
            writing.close(problem)
            self._say("")
            self._changed()
            if self.is_mounted:
                self._show()
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
            self._changed()
            self._show()
        elif isinstance(event, protocol.Token) and number in self._path:
            self.transcript.append(self._path.index(number), event.piece, mark=event.settings_mark)
            self._keeper.changed(self.talk)
            if writing.n_new == 1:
                self._show_figures()

    def _changed(self) -> None:
        self.talk.settings, self.talk.seed = self.panel.decoding.settings, self.panel.decoding.seed
        self._keeper.changed(self.talk)

    def _say(self, text: str) -> None:
        name_box(self.transcript, subtitle=text)

    def _complain(self, sentence: str) -> None:
        self.app.call_later(lambda: self.notify(sentence, severity="error", markup=False, timeout=15))

    def _busy(self) -> bool:
        """Is a reply being written? Then say how to stop it."""
        if self.running:
            self.notify("A reply is being written: Esc stops it, and keeps what is there.", markup=False)
        return self.running

    def decode_with(self, decoding: Decoding) -> None:
        super().decode_with(decoding)
        self._changed()

    # ------------------------------------------------------------------ turns
    def action_again(self) -> None:
        parent = replies.parent_of_reply(self.talk, self.chosen)
        if parent == TOP:
            self.notify("There is nothing to reply to yet.", markup=False)
        elif not self._busy():
            self._reply_to(parent)

    def action_go_on(self) -> None:
        number = self.chosen
        if number == TOP or self._busy():
            return
        if not self.talk.turns[number].can_go_on:
            sentence = "This reply was ended by the model itself: ^R writes another, e (after Tab) edits it."
            self.notify(sentence if self.talk.turns[number].role == "assistant" else _OWN, markup=False)
            return
        self._begin(replies.go_on(self.talk, number, self.panel.decoding, self.heard))

    def action_version(self, by: int) -> None:
        number = self.chosen
        if self.typing:  # the last turn of which there are several
            number = next((n for n in reversed(self._path) if len(self.talk.versions(n)) > 1), TOP)
        if number == TOP or len(self.talk.versions(number)) < 2:
            self.notify("There is one version of this turn: ^R writes another reply, e edits.", markup=False)
            return
        index = self._path.index(number)
        self.talk.step(number, by)
        self._changed()
        self._show()
        if not self.typing:
            self.transcript.choose(index)

    def action_edit(self) -> None:
        number = self.chosen
        if number == TOP or self._busy():
            return
        self._draft = self.message.text if self._editing is None else self._draft
        self._editing = number
        turn = self.talk.turns[number]
        whose = "your turn" if turn.role == "user" else "the reply"
        name_box(self.message, title=f"Another version of {whose}", subtitle="Enter accept · Esc leave")
        self._fill_in(turn.text)

    def _accept_edit(self, number: int, text: str) -> None:
        if not text.strip():
            self.notify("A turn cannot be empty: Esc leaves it as it was.", markup=False)
            return
        new = self.talk.edit(number, text)
        self._leave_edit()
        self._changed()
        if self.talk.turns[new].role == "user":
            self._reply_to(new)
        else:
            self._show()
            self.notify("^E lets the model go on from here.", markup=False)

    def _leave_edit(self) -> None:
        if self._editing is not None:
            self._editing = None
            self._fill_in(self._draft)
            self._show_frame()

    def _fill_in(self, text: str) -> None:
        self.message.text = text
        self.message.move_cursor(self.message.document.end)
        self.message.focus()
        self.refresh_keys()

    @on(Transcript.Take)
    def _take_rival(self, event: Transcript.Take) -> None:
        index = self._token_index()
        if self._busy():
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
            self.app.copy_to_clipboard(self.talk.turns[self.chosen].text)
            self.notify("Copied, where the terminal allows it (OSC 52).", markup=False)

    # ------------------------------------------------------------------ focus and keys
    def keys_now(self) -> tuple[list[str], dict[str, str]]:
        if self.running:
            return ["chat.stop", *(["chat.turns"] if self.typing else [*_VERSION, *_WARMTH])], {}
        if self._editing is not None:
            return ["message.send", "message.newline", "chat.stop"], {
                "message.send": "accept",
                "chat.stop": "leave it",
            }
        pull = ["chat.pull"] if chat_view.offers(self.session.models) and self.session.models else []
        if not self._path:
            return ["message.send", *pull, "chat.setup", "app.model", "chat.older"], {}
        turn = self.talk.turns[self.chosen]
        go_on = ["chat.continue"] if turn.can_go_on else []
        if self.typing:
            return ["message.send", *go_on, "chat.again", "chat.turns", "chat.new", "chat.setup", *pull], {}
        token = ["turns.take1"] if self._token_index() is not None else []
        ids = [
            "chat.edit",
            *go_on,
            "chat.again",
            *_VERSION,
            *token,
            "tokens.previous",
            "tokens.next",
            "chat.copy",
        ]
        return ["chat.write", *ids], {"turns.take1": "…9 take"}

    async def action_escape(self) -> None:
        if self.running and self._stream is not None:
            self._say("stopping")
            await self._stream.cancel()
        elif self.running:  # still waiting for the model
            self.workers.cancel_group(self, "write")
        elif self._pulling:
            self.workers.cancel_group(self, "pull")
        elif self._editing is not None:
            self._leave_edit()
        elif self.typing:
            self.transcript.focus()
        else:
            self.transcript.choose(None)

    def action_switch_focus(self) -> None:
        (self.transcript if self.message.has_focus else self.message).focus()

    def action_write(self) -> None:
        self.message.focus()

    # ------------------------------------------------------------------ the conversation as a whole
    def action_replies(self, by: int) -> None:
        self.talk.n_replies = min(max(self.talk.n_replies + by, 1), MAX_REPLIES)
        self._changed()
        self._show_frame()

    def action_setup(self) -> None:
        def done(setup: Setup | None) -> None:
            if setup is not None:
                self.talk.system, self.talk.stop, self.talk.max_tokens = setup
                self._changed()
                self._show_frame()

        now = Setup(self.talk.system, self.talk.stop, self.talk.max_tokens)
        self.app.push_screen(SetupScreen(now), done)

    async def action_new(self) -> None:
        """An empty conversation, held under the same terms."""
        if not self._busy():
            await self._keeper.save()
            kept = {name: getattr(self.talk, name) for name in ("system", "stop", "max_tokens", "n_replies")}
            self._use(Conversation(settings=self.talk.settings, seed=self.talk.seed, **kept))
            self.message.focus()

    async def action_recall(self, by: int) -> None:
        """The conversation ``by`` places further back."""
        if self._busy():
            return
        await self._keeper.save()
        keys = await asyncio.to_thread(self._keeper.store.keys)
        index = (keys.index(self.talk.key) if self.talk.key in keys else -1) + by
        if 0 <= index < len(keys):
            await self._open(keys[index])
        elif by < 0 and self._path:
            await self.action_new()

    @work(exclusive=True, group="open")
    async def action_open(self) -> None:
        await self._keeper.save()
        saved = await asyncio.to_thread(self._keeper.store.listed)
        if not saved:
            self.notify("No conversation is saved yet.", markup=False)
            return
        rows = [chat_view.listed_row(entry) for entry in saved]
        key = await self.app.push_screen_wait(Choice("Chats", rows, self.talk.key))
        if key is not None and not self._busy():
            await self._open(key)

    async def _open(self, key: str) -> None:
        try:
            self._use(await asyncio.to_thread(self._keeper.store.open, key))
        except ValueError as error:
            self.notify(str(error), severity="error", markup=False, timeout=15)

    def action_export(self) -> None:
        if not self._path:
            self.notify("There is nothing to export yet.", markup=False)
            return

        async def write(text: str) -> str:
            folder = Path(text).expanduser()
            try:
                markdown, plain_json = await asyncio.to_thread(export, self.talk, folder)
            except OSError as error:
                raise ValueError(f"{folder} cannot be written to: {error.strerror}.") from None
            return f"{markdown} and {plain_json.name}"

        def done(written: str | None) -> None:
            if written is not None:
                self.notify(f"Written: {written}", markup=False, timeout=10)

        hint = "A folder; a Markdown and a JSON file are written there."
        self.app.push_screen(Prompt("Export", text=str(Path.cwd()), hint=hint, act=write), done)

    # ------------------------------------------------------------------ the suggested model
    @work(exclusive=True, group="pull")
    async def action_pull(self) -> None:
        if self._pulling or not chat_view.offers(self.session.models):
            return
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
            self._progress("")
            if stream is not None and not stream.ended:
                await asyncio.shield(stream.cancel())

    def _progress(self, text: str) -> None:
        self._pulling = text
        self._say(f"SmolLM2: {text}" if text else "")
        self._show_frame()
        self.refresh_keys()


_WARMTH = ("temperature.lower", "temperature.raise")
_VERSION = ("chat.older_version", "chat.newer_version")
_OWN = "This turn is yours: ^R writes a reply to it."
