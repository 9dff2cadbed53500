"""ChatFrame: what the chat shows of its conversation. What happens to it is in chat.py and chat_book.py."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual import on
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import TextArea

from tfm.core.sampling.settings import PRESETS
from tfm.tui import keymap, replies
from tfm.tui.client import Stream
from tfm.tui.conversation import TOP, Conversation
from tfm.tui.export import Page, chat_json, chat_page
from tfm.tui.keeper import Keeper
from tfm.tui.replies import Heard, Replies
from tfm.tui.safe_text import plain
from tfm.tui.screens import chat_view
from tfm.tui.screens.kept_screen import SAVE_EVERY, KeptScreen
from tfm.tui.widgets.chat_panel import ChatPanel, Versions
from tfm.tui.widgets.lines import name_box
from tfm.tui.widgets.message_input import MessageInput
from tfm.tui.widgets.sampling_panel import Decoding, SamplingPanel
from tfm.tui.widgets.token_panel import TokenPanel
from tfm.tui.widgets.transcript import Transcript
from tfm.tui.works import chats

FIGURES_HZ = 2  # how often figures follow a running reply; the text itself follows every frame


class ChatFrame(KeptScreen):
    """The widgets, the conversation that they show, and which part of it keys act on."""

    MODE = "chat"
    SESSIONS, HOLDS = "Chats", "turns"
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.CHAT, *keymap.SESSION, *keymap.KNOBS]
    AUTO_FOCUS = "#message"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (70, "-normal"), (120, "-wide")]  # from so many cells on
    VERTICAL_BREAKPOINTS = [(0, "-short"), (20, "-medium"), (34, "-tall")]

    def __init__(self) -> None:
        super().__init__()
        self.talk = Conversation()
        self.writing: Replies | None = None
        self.heard: Heard = {}
        self.path: list[int] = []  # the turns on the screen
        self.editing: int | None = None
        self.draft = ""  # what was being written when an edit began
        self.pulling = ""  # how far the fetching of the suggested model is
        self.stream: Stream | None = None
        self.figures: Timer | None = None
        self.keeper = Keeper(chats(), self._complain)

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
        self.figures = self.set_interval(1 / FIGURES_HZ, self.show_figures, pause=True)
        self.set_interval(SAVE_EVERY, self.keeper.keep_up)
        name_box(self.query_one(ChatPanel), title="This chat")
        name_box(self.query_one(Versions), title="Versions")
        latest, damaged = self.keeper.store.reopened()
        if damaged:
            self._complain(damaged)
        self.use(latest or Conversation())

    def keep(self) -> None:
        """The app ends, perhaps in the middle of a reply: what is there is kept."""
        if self.writing is not None and self.running:
            self.writing.close()
            self.keeper.changed(self.talk)
        self.keeper.save_now()

    @property
    def message(self) -> MessageInput:
        return self.query_one(MessageInput)

    @property
    def transcript(self) -> Transcript:
        return self.query_one(Transcript)

    @property
    def standing(self) -> bool:
        """Are the widgets there? A worker that is cancelled by the end of the app sees them gone."""
        return bool(self.query(Transcript))

    @property
    def running(self) -> bool:
        return self.writing is not None and not self.writing.ended

    @property
    def tunable(self) -> Stream | None:
        return self.stream

    @property
    def chosen(self) -> int:
        """The turn that keys act on: the one that is marked, else the last; TOP: there is none."""
        index = self.transcript.turn
        if index is not None and not self.typing and index < len(self.path):
            return self.path[index]
        return self.path[-1] if self.path else TOP

    def refresh_status(self) -> None:
        super().refresh_status()
        if self.is_mounted:
            self.show_frame()
            self.refresh_keys()

    # ------------------------------------------------------------------ the session
    @property
    def kept(self) -> Conversation:
        return self.talk

    def fresh(self) -> Conversation:
        """An empty conversation, held under the same terms."""
        kept = {name: getattr(self.talk, name) for name in ("system", "stop", "max_tokens", "n_replies")}
        return Conversation(settings=self.talk.settings, seed=self.talk.seed, **kept)

    def written(self) -> tuple[Page, bytes] | None:
        return (chat_page(self.talk, self.heard), chat_json(self.talk)) if self.path else None

    @property
    def found_in(self) -> Transcript:
        return self.transcript

    # ------------------------------------------------------------------ what is shown
    def use(self, talk: Conversation) -> None:
        """Put another conversation on the screen."""
        self.talk, self.writing = talk, None
        self.heard.clear()
        self.leave_edit()
        settings = talk.settings or self.panel.decoding.settings
        self.panel.decoding = Decoding(settings=settings, seed=talk.seed)
        self.transcript.choose(None)
        self.show_all()
        self.transcript.show_end()
        self.fill_in(talk.draft)

    def show_all(self) -> None:
        """The turns, laid out anew where they differ, and all that is said about them."""
        self.path = self.talk.path
        writing = self.writing.turns if self.writing is not None and self.running else []
        self.transcript.show(chat_view.turn_views(self.talk, self.heard, writing))
        self.show_frame()
        self.show_figures()
        self.refresh_keys()

    def show_frame(self) -> None:
        name_box(self.transcript, title=self.talk.title or "New chat")
        info = self.session.info
        hint = chat_view.welcome(info, self.session.problem, self.session.models, self.pulling)
        self.transcript.hint([(self.told(sentence), style) for sentence, style in hint])
        if self.editing is None:
            name_box(self.message, title="Message", subtitle="")
            self.message.placeholder = plain(self.told("Write something and press {message.send}"))
        self.query_one(ChatPanel).tell(chat_view.facts(self.talk, info.max_positions if info else 0))

    def show_figures(self) -> None:
        self._show_token()
        versions = self.query_one(Versions)
        replied = [number for number in self.path if len(self.talk.versions(number)) > 1]
        number = self.chosen if self.chosen in replied else (replied[-1] if replied else TOP)
        versions.versions = chat_view.version_list(self.talk, number) if number != TOP else []
        versions.shown = self.talk.versions(number).index(number) if number != TOP else 0
        versions.repaint()
        info = self.session.info
        facts = chat_view.facts(self.talk, info.max_positions if info else 0)
        self.query_one(ChatPanel).tell(facts)
        self.session.context(facts.used)
        if self.writing is not None:
            self.session.rate(self.writing.rate)

    def _show_token(self) -> None:
        panel = self.query_one(TokenPanel)
        number, index = self.chosen, self.token_index()
        tokens = self.heard.get(number, [])
        token = tokens[index] if index is not None else (tokens[-1] if tokens else None)
        mark = self.transcript.token if not self.typing else None
        turn = self.talk.turns[number] if number != TOP else None
        told = replies.mark_text(turn, tokens, mark) if turn is not None and mark is not None else ""
        if token is None:
            panel.title("token", told)
            old = number != TOP and self.talk.turns[number].role == "assistant"
            panel.token(None, _BEFORE if old else self.told(_RIVALS))
            return
        place = f"token {token.position + 1} of {len(self.talk.turns[number].tokens)}"
        panel.title(f"{place} · log p {token.logprob:.2f} · entropy {token.entropy:.1f}", told)
        panel.token(token)

    def token_index(self) -> int | None:
        """Which of the tokens that were heard is marked."""
        number, marked = self.chosen, self.transcript.token
        if marked is None or number == TOP or self.typing:
            return None
        tokens = self.heard.get(number, [])
        index = marked - replies.pieces(self.talk.turns[number], tokens)[1]
        return index if 0 <= index < len(tokens) else None

    @on(Transcript.Chosen)
    def _turn_chosen(self) -> None:
        self.show_figures()
        self.refresh_keys()

    # ------------------------------------------------------------------ telling
    def changed(self) -> None:
        self.talk.settings, self.talk.seed = self.panel.decoding.settings, self.panel.decoding.seed
        super().changed()

    def say(self, text: str) -> None:
        name_box(self.transcript, subtitle=text)

    def busy(self) -> bool:
        """Is a reply being written? Then say how to stop it."""
        if self.running:
            sentence = "A reply is being written: {chat.stop} stops it, and keeps what is there."
            self.notify(self.told(sentence), markup=False)
        return self.running

    def decode_with(self, decoding: Decoding) -> None:
        super().decode_with(decoding)
        self.changed()

    # ------------------------------------------------------------------ the message
    @on(TextArea.Changed)
    def _typed(self) -> None:
        """What is being written is a part of the conversation, too."""
        if self.editing is None and self.message.text != self.talk.draft:
            self.talk.draft = self.message.text
            self.changed()

    def leave_edit(self) -> None:
        if self.editing is not None:
            self.editing = None
            self.fill_in(self.draft)
            self.show_frame()

    def fill_in(self, text: str) -> None:
        self.message.text = text
        self.message.move_cursor(self.message.document.end)
        self.message.focus()
        self.refresh_keys()

    # ------------------------------------------------------------------ keys
    def keys_now(self) -> tuple[list[str], dict[str, str]]:
        if self.running:
            return ["chat.stop", *(["chat.turns"] if self.typing else [*_VERSION, *_WARMTH])], {}
        if self.editing is not None:
            return ["message.send", "message.newline", "chat.stop"], {
                "message.send": "accept",
                "chat.stop": "leave it",
            }
        pull = ["chat.pull"] if chat_view.offers(self.session.models) and self.session.models else []
        if not self.path:
            return ["message.send", *pull, "chat.setup", "app.model", "chat.older"], {}
        turn = self.talk.turns[self.chosen]
        go_on = ["chat.continue"] if turn.can_go_on else []
        if self.typing:
            ids = ["message.send", *go_on, "chat.again", "chat.turns", "session.new", "chat.setup", *pull]
            return ids, {}
        token = ["turns.take1"] if self.token_index() is not None else []
        turn_ids = [
            "chat.edit",
            *go_on,
            "chat.again",
            *_VERSION,
            *token,
            "tokens.previous",
            "tokens.next",
            "chat.copy",
            "find.open",
        ]
        return ["chat.write", *turn_ids], {"turns.take1": "…9 take"}


_RIVALS = "Each token's rivals show here: {chat.turns}, then {tokens.previous} {tokens.next}."
_BEFORE = "This reply was written in an earlier session: the rivals of its tokens are not kept."
_WARMTH = ("temperature.lower", "temperature.raise")
_VERSION = ("chat.older_version", "chat.newer_version")
