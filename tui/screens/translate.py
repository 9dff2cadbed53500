"""Translate: a text goes in, its translation streams out, and the knobs are at hand."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable
from typing import ClassVar

import msgspec
from textual import on, work
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import TextArea

from tfm.core.engine import protocol
from tfm.tui import clipboard, keymap
from tfm.tui.client import EngineProblem, Stream
from tfm.tui.exchange import Exchange
from tfm.tui.export import Page, notebook_json, notebook_page
from tfm.tui.keeper import Keeper
from tfm.tui.notebook import Notebook
from tfm.tui.safe_text import plain
from tfm.tui.screens.kept_screen import SAVE_EVERY, KeptScreen, Place
from tfm.tui.search import find
from tfm.tui.widgets.earlier import Earlier
from tfm.tui.widgets.lines import name_box
from tfm.tui.widgets.sampling_panel import Decoding, SamplingPanel
from tfm.tui.widgets.source_input import PASTE_LIMIT, SourceInput
from tfm.tui.widgets.token_panel import TokenPanel
from tfm.tui.widgets.token_stream import TokenStream
from tfm.tui.works import translations

FIGURES_HZ = 2  # how often figures follow a running generation; the text itself follows every frame
RIVALS_EVERY = 1.0  # seconds between looks at the newest token's rivals, while no token is selected
MAX_BEAM = 16


class TranslateScreen(KeptScreen):
    MODE = "translate"
    SESSIONS, HOLDS = "Translations", "texts"
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.TRANSLATE, *keymap.SESSION, *keymap.KNOBS]
    AUTO_FOCUS = "#source"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (70, "-normal"), (120, "-wide")]  # from so many cells on
    VERTICAL_BREAKPOINTS = [(0, "-short"), (20, "-medium"), (34, "-tall")]

    def __init__(self) -> None:
        super().__init__()
        self.exchange: Exchange | None = None
        self.book = Notebook()
        self.keeper = Keeper(translations(), self._complain)
        self._stream: Stream | None = None
        self._figures: Timer | None = None
        self._rivals_shown = 0.0

    # ------------------------------------------------------------------ layout
    def body(self) -> Iterable[Widget]:
        with Horizontal(id="translate"):
            with Vertical(id="texts"):
                yield SourceInput(
                    id="source", classes="box", soft_wrap=True, compact=True, show_line_numbers=False
                )
                yield TokenStream(id="target", classes="box")
            with Vertical(id="side"):
                yield SamplingPanel(id="sampling", classes="box")
                yield Earlier(id="earlier", classes="box")
        yield TokenPanel(id="candidates")

    def on_mount(self) -> None:
        self.source.cursor_blink = False  # nothing moves unless something happened
        self._figures = self.set_interval(1 / FIGURES_HZ, self._show_figures, pause=True)
        name_box(self.query_one(Earlier), title="Earlier")
        self._show_languages()
        self._show_figures()
        self.set_interval(SAVE_EVERY, self.keeper.keep_up)
        self.call_after_refresh(self._reopen)  # the first paint waits for no file

    def keep(self) -> None:
        """The app ends, perhaps in the middle of a translation: what is there is kept."""
        if self.exchange is not None and self.running:
            self.exchange.cancelled = True
            self.changed()
        self.keeper.save_now()

    @property
    def history(self) -> list[Exchange]:
        return self.book.exchanges

    @property
    def source(self) -> SourceInput:
        return self.query_one(SourceInput)

    @property
    def target(self) -> TokenStream:
        return self.query_one(TokenStream)

    @property
    def running(self) -> bool:
        return self.exchange is not None and not self.exchange.ended

    def refresh_status(self) -> None:
        super().refresh_status()
        if self.is_mounted:
            self._show_languages()

    def _show_languages(self) -> None:
        info = self.session.info
        languages = ("Text", "Translation")
        if info and len(info.languages) == 2:
            languages = (_language(info.languages[0]), _language(info.languages[1]))
        name_box(self.source, title=languages[0])
        name_box(self.target, title=languages[1])
        what = languages[0] if info else "a sentence"
        self.source.placeholder = plain(f"Type {what} and press {self.told('{source.submit}')}")
        if self.exchange is None:
            if self.session.problem:
                self.target.placeholder(self.session.problem, "bad")
            else:
                self.target.placeholder("The translation appears here, token by token.", "faint")

    # ------------------------------------------------------------------ the session
    @work(exclusive=True, group="open")
    async def _reopen(self) -> None:
        """Go on where the last session ended, unless something has begun already."""
        latest, damaged = await asyncio.to_thread(self.keeper.store.reopened)
        if damaged:
            self._complain(damaged)
        untouched = not self.source.text and self.exchange is None and self.panel.decoding == Decoding()
        if latest is not None and untouched:
            self.use(latest)

    @property
    def kept(self) -> Notebook:
        return self.book

    def fresh(self) -> Notebook:
        return Notebook(decoding=self.panel.decoding)

    def use(self, work: Notebook) -> None:
        self.book = work
        self.panel.decoding = work.decoding
        if work.shown >= 0:
            self._show(work.exchanges[work.shown])
        else:
            self.exchange = None
            self.target.clear()
            self._show_figures()
            self._show_earlier()
            self._show_languages()
        self.source.text = work.draft
        self.source.move_cursor(self.source.document.end)
        self.source.focus()
        self.refresh_keys()

    def busy(self) -> bool:
        if self.running:
            sentence = "A text is being translated: {translate.stop} stops it, and keeps what is there."
            self.notify(self.told(sentence), markup=False)
        return self.running

    def changed(self) -> None:
        self.book.started = self.book.started or time.time()
        self.book.decoding = self.panel.decoding
        super().changed()

    @on(TextArea.Changed)
    def _typed(self) -> None:
        if self.source.text != self.book.draft:
            self.book.draft = self.source.text
            self.changed()

    def decode_with(self, decoding: Decoding) -> None:
        super().decode_with(decoding)
        self.changed()

    def written(self) -> tuple[Page, bytes] | None:
        return (notebook_page(self.book), notebook_json(self.book)) if self.book.exchanges else None

    @property
    def found_in(self) -> TokenStream:
        return self.target

    def places(self, pattern: re.Pattern[str]) -> list[Place]:
        """In every text of the session and in its translation, line by line."""
        self.target.search(pattern)
        found: list[Place] = []
        for number, exchange in enumerate(self.history):
            found += [Place(number, None)] if find(pattern, [exchange.source]) else []
            found += [Place(number, match) for match in find(pattern, exchange.text.split("\n"))]
        return found

    def go_to(self, place: Place) -> None:
        if self.running:
            return
        if self.history[place.part] is not self.exchange:
            self._show(self.history[place.part])
        if place.match is not None and place.match in self.target.matches():
            self.target.show_match(place.match)
        else:
            self.target.show_match(None)

    # ------------------------------------------------------------------ translating
    @on(SourceInput.Submitted)
    def _submitted(self, event: SourceInput.Submitted) -> None:
        self.translate(event.text)

    @on(SourceInput.PasteRefused)
    def _paste_refused(self, event: SourceInput.PasteRefused) -> None:
        self.notify(
            f"That paste holds {event.length:,} characters and the input takes {PASTE_LIMIT:,}. "
            "For whole files: tfm-tui translate < FILE",
            severity="warning",
            markup=False,
        )

    def translate(self, text: str) -> None:
        """Begin to translate; a translation that is still running is stopped first."""
        text = text.strip("\n")
        if not text.strip():
            self.notify("Type a sentence first.", markup=False)
            return
        before = self.exchange
        self.exchange = Exchange(text, self.panel.decoding)
        if before is not None and before.ended and _same(before, self.exchange):
            same = _SAME if before.decoding.method == "sample" else _SAME_BEAM
            self.notify(self.told(same), markup=False)
        self._generate(self.exchange)

    @work(exclusive=True, group="generate")
    async def _generate(self, exchange: Exchange, *, on: bool = False) -> None:
        """Write an exchange's translation, or ``on`` from where it was stopped or broken off."""
        target = self.target
        target.begin(len(exchange.lines))
        unfinished = exchange.unfinished if on else exchange.places
        if on:
            self._put(exchange)
        else:
            self.book.add(exchange)
        for number in set(range(len(exchange.lines))) - set(unfinished):
            target.finish(number)
        self.changed()
        self._show_earlier()
        assert self._figures is not None
        self._figures.resume()
        self.refresh_keys()
        stream: Stream | None = None
        try:
            self.say("waiting for the model" if not self.session.info else "")
            model = await self.session.ready()
            self._stream = stream = await self.session.client.request(
                exchange.go_on(model) if on else exchange.request(model)
            )
            async for events in stream.handfuls():
                for event in events:
                    self._take(exchange, event)
        except EngineProblem as problem:
            exchange.problem = str(problem)
            if not exchange.text.strip():
                target.message(exchange.problem)
            else:
                self.notify(exchange.problem, severity="error", markup=False, timeout=15)
        finally:
            exchange.ended = True
            self.changed()
            if stream is not None and not stream.ended:  # this worker was cancelled
                self._stream = None
                await asyncio.shield(stream.cancel())
            if exchange is self.exchange:
                self._stream = None
                self._figures.pause()
                target.finish_all()
                self._show_figures()
                self._show_earlier()
                self.refresh_keys()

    def _take(self, exchange: Exchange, event: protocol.Event) -> None:
        """One event of the engine: into the record, and onto the screen."""
        place = exchange.apply(event)
        if place is None:
            return
        first = exchange.n_tokens == 1
        self.keeper.changed(self.book)
        if isinstance(event, protocol.Token):
            self.target.append(place, event.piece, mark=event.settings_mark, logprob=event.logprob)
            if first:
                self._show_figures()
        elif isinstance(event, protocol.BeamStep):
            self.target.replace(place, event.hypotheses[0].text if event.hypotheses else "")
        elif isinstance(event, protocol.LaneDone):
            if exchange.decoding.method == "beam":
                self.target.replace(place, event.text)
            self.target.finish(place)

    # ------------------------------------------------------------------ figures and candidates
    def say(self, text: str) -> None:
        name_box(self.target, subtitle=text)

    def _show_figures(self) -> None:
        exchange = self.exchange
        panel = self.query_one(TokenPanel)
        if exchange is None or (self.running and not exchange.n_tokens):
            panel.title("token")
            panel.token(None, self.told(_RIVALS))
            return
        selected = self.target.selected
        token = exchange.tokens[selected[0]][selected[1]] if selected else exchange.newest
        mark = ""
        title = f"{exchange.n_tokens} tokens · log p {exchange.logprob:.1f}"
        if selected and token:
            title = (
                f"token {selected[1] + 1} of {len(exchange.tokens[selected[0]])} · log p {token.logprob:.2f}"
            )
            mark = exchange.mark_text(*selected)
        if token is not None:
            title += f" · entropy {'now ' if self.running else ''}{token.entropy:.1f}"
        panel.title(title, mark)
        if exchange.decoding.method == "beam" and not any(exchange.tokens):
            panel.beam(next((b for b in reversed(exchange.beams) if b), ()))
        elif not self.running or selected or time.monotonic() - self._rivals_shown >= RIVALS_EVERY:
            self._rivals_shown = time.monotonic()
            panel.token(token)
        self.session.rate(exchange.rate)
        self.session.context(max((len(tokens) for tokens in exchange.tokens), default=0))
        if self.session.info:
            self.say(_how_it_ended(exchange))

    @on(TokenStream.Selected)
    def _token_selected(self) -> None:
        self._show_figures()

    # ------------------------------------------------------------------ keys
    def keys_now(self) -> tuple[list[str], dict[str, str]]:
        if self.running:
            return ["translate.stop", *(["translate.tokens"] if self.typing else _WARMTH)], {}
        again = ["translate.again"] if self.exchange else []
        if self.exchange is not None and self.exchange.unfinished:
            again = ["translate.continue", *again]
        if self.typing:
            ids = ["source.submit", *again, "translate.tokens", "translate.clear", "mode.train", "app.model"]
            return ids, {"translate.tokens": "knobs" if not again else "tokens and knobs"}
        walk = ["tokens.previous", "tokens.next"] if self.exchange else []
        ids = ["translate.edit", *walk, *again, *_WARMTH]
        return [*ids, "sampling.decode", "sampling.stages", *(["find.open"] if self.exchange else [])], {}

    async def action_escape(self) -> None:
        if self.running and self._stream is not None:
            self.say("stopping")
            await self._stream.cancel()
        elif self.running and self.exchange is not None:  # still waiting for the model
            self.exchange.cancelled = True
            self.workers.cancel_group(self, "generate")
        elif self.end_search():
            pass
        elif self.typing:
            self.set_focus(self.target)
        else:
            self.target.select(0, None)

    def action_again(self) -> None:
        self.translate(self.exchange.source if self.exchange and not self.typing else self.source.text)

    def action_go_on(self) -> None:
        exchange = self.exchange
        if exchange is None or self.running:
            return
        if not exchange.unfinished:
            self.notify(
                self.told("This translation is at its end: {translate.again} makes another one."),
                markup=False,
            )
        else:
            self._generate(exchange, on=True)

    def action_clear(self) -> None:
        self.source.clear()
        self.source.focus()

    def action_edit(self) -> None:
        self.set_focus(self.source)  # now: text may follow

    def action_switch_focus(self) -> None:
        self.set_focus(self.target if self.source.has_focus else self.source)  # now: letters may follow

    def action_copy(self) -> None:
        clipboard.copy(self.app, self.exchange.text if self.exchange else "", "the translation")

    def action_recall(self, by: int) -> None:
        """Show an older or newer exchange again, with all its tokens."""
        if not self.history or self.running:
            return
        index = self.history.index(self.exchange) if self.exchange in self.history else len(self.history)
        self._show(self.history[min(max(index + by, 0), len(self.history) - 1)])

    def _put(self, exchange: Exchange) -> None:
        """All that an exchange holds, onto the screen."""
        for place, tokens in enumerate(exchange.tokens):
            self.target.extend(place, [(t.piece, t.settings_mark, t.logprob) for t in tokens])
            if not tokens:
                self.target.replace(place, exchange.text.split("\n")[place])

    def _show(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.book.shown = self.history.index(exchange)
        self.source.text = exchange.source
        self.source.move_cursor(self.source.document.end)
        self.target.begin(len(exchange.lines))
        self._put(exchange)
        self.target.finish_all()
        if exchange.problem and not exchange.text.strip():
            self.target.message(exchange.problem)
        self._show_figures()
        self._show_earlier()

    def _show_earlier(self) -> None:
        earlier = self.query_one(Earlier)
        earlier.history, earlier.shown = self.history, self.exchange
        earlier.repaint()

    # ------------------------------------------------------------------ decoding
    @property
    def tunable(self) -> Stream | None:
        stream = self._stream
        samples = self.panel.decoding.method == "sample"
        return stream if stream and samples and isinstance(stream.request, protocol.Generate) else None

    def action_decode(self) -> None:
        other = "beam" if self.panel.decoding.method == "sample" else "sample"
        self.decode_with(msgspec.structs.replace(self.panel.decoding, method=other))

    def action_beam_width(self, by: int) -> None:
        width = min(max(self.panel.decoding.beam_width + by, 1), MAX_BEAM)
        self.decode_with(msgspec.structs.replace(self.panel.decoding, method="beam", beam_width=width))


_LANGUAGES = {
    "en": "English", "de": "German", "fr": "French", "cs": "Czech", "it": "Italian", "es": "Spanish",
    "ko": "Korean", "ja": "Japanese", "zh": "Chinese", "nl": "Dutch", "pl": "Polish", "pt": "Portuguese",
}  # fmt: skip
_WARMTH = ("temperature.lower", "temperature.raise")
_RIVALS = (
    "Each token's rivals and their probabilities show here: {translate.tokens}, then {tokens.previous} "
    "{tokens.next}."
)
_SAME = (
    "The same text, settings and seed make the same translation: {sampling.seed} for another seed, "
    "{temperature.raise} for more heat."
)
_SAME_BEAM = (
    "Beam search makes the same translation every time: {sampling.decode} for sampling, {beam.wider} for a "
    "wider beam."
)


def _same(before: Exchange, now: Exchange) -> bool:
    same = before.source == now.source and before.decoding == now.decoding
    return same and not before.cancelled and not before.turned


def _language(name: str) -> str:
    """A code as a name; a name as it is."""
    return _LANGUAGES.get(name.lower(), name)


def _how_it_ended(exchange: Exchange) -> str:
    """What the translation's frame says about it: nothing where all is as it should be."""
    reasons = {done.reason for done in exchange.done if done}
    if exchange.problem:
        return "broken off"
    if exchange.cancelled:
        return "stopped"
    if "length" in reasons:
        return "cut: the longest it may be"
    return ""
