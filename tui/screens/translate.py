"""Translate: a text goes in, its translation streams out, and the knobs are at hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import ClassVar

import msgspec
from textual import on, work
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.timer import Timer
from textual.widget import Widget

from tfm.core.engine import protocol
from tfm.tui import keymap
from tfm.tui.client import EngineProblem, Stream
from tfm.tui.exchange import Exchange
from tfm.tui.safe_text import plain
from tfm.tui.screens.knob_screen import KnobScreen
from tfm.tui.widgets.earlier import Earlier
from tfm.tui.widgets.lines import name_box
from tfm.tui.widgets.sampling_panel import SamplingPanel
from tfm.tui.widgets.source_input import PASTE_LIMIT, SourceInput
from tfm.tui.widgets.token_panel import TokenPanel
from tfm.tui.widgets.token_stream import TokenStream

FIGURES_HZ = 2  # how often figures follow a running generation; the text itself follows every frame
RIVALS_EVERY = 1.0  # seconds between looks at the newest token's rivals, while no token is selected
MAX_BEAM = 16


class TranslateScreen(KnobScreen):
    MODE = "translate"
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.TRANSLATE, *keymap.KNOBS]
    AUTO_FOCUS = "#source"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (70, "-normal"), (120, "-wide")]  # from so many cells on
    VERTICAL_BREAKPOINTS = [(0, "-short"), (20, "-medium"), (34, "-tall")]

    def __init__(self) -> None:
        super().__init__()
        self.exchange: Exchange | None = None
        self.history: list[Exchange] = []
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
        self.source.placeholder = plain(f"Type {languages[0] if info else 'a sentence'} and press Enter")
        if self.exchange is None:
            if self.session.problem:
                self.target.placeholder(self.session.problem, "bad")
            else:
                self.target.placeholder("The translation appears here, token by token.", "faint")

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
            self.notify(_SAME if before.decoding.method == "sample" else _SAME_BEAM, markup=False)
        self._generate(self.exchange)

    @work(exclusive=True, group="generate")
    async def _generate(self, exchange: Exchange) -> None:
        target = self.target
        target.begin(len(exchange.lines))
        for number in set(range(len(exchange.lines))) - set(exchange.places):
            target.finish(number)
        self.history.append(exchange)
        self._show_earlier()
        assert self._figures is not None
        self._figures.resume()
        self.refresh_keys()
        stream: Stream | None = None
        try:
            self._say("waiting for the model" if not self.session.info else "")
            model = await self.session.ready()
            self._stream = stream = await self.session.client.request(exchange.request(model))
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
        if isinstance(event, protocol.Token):
            self.target.append(place, event.piece, mark=event.settings_mark)
            if first:
                self._show_figures()
        elif isinstance(event, protocol.BeamStep):
            self.target.replace(place, event.hypotheses[0].text if event.hypotheses else "")
        elif isinstance(event, protocol.LaneDone):
            if exchange.decoding.method == "beam":
                self.target.replace(place, event.text)
            self.target.finish(place)

    # ------------------------------------------------------------------ figures and candidates
    def _say(self, text: str) -> None:
        name_box(self.target, subtitle=text)

    def _show_figures(self) -> None:
        exchange = self.exchange
        panel = self.query_one(TokenPanel)
        if exchange is None or (self.running and not exchange.n_tokens):
            panel.title("token")
            panel.token(None, "Each token's rivals and their probabilities show here: Tab, then ← →.")
            return
        selected = self.target.selected
        token = exchange.tokens[selected[0]][selected[1]] if selected else exchange.newest
        title = f"{exchange.n_tokens} tokens · log p {exchange.logprob:.1f}"
        if selected and token:
            title = (
                f"token {selected[1] + 1} of {len(exchange.tokens[selected[0]])} · log p {token.logprob:.2f}"
            )
        if token is not None:
            title += f" · entropy {'now ' if self.running else ''}{token.entropy:.1f}"
        panel.title(title)
        if exchange.decoding.method == "beam" and not any(exchange.tokens):
            panel.beam(next((b for b in reversed(exchange.beams) if b), ()))
        elif not self.running or selected or time.monotonic() - self._rivals_shown >= RIVALS_EVERY:
            self._rivals_shown = time.monotonic()
            panel.token(token)
        self.session.rate(exchange.rate)
        if self.session.info:
            self._say(_how_it_ended(exchange))

    @on(TokenStream.Selected)
    def _token_selected(self) -> None:
        self._show_figures()

    # ------------------------------------------------------------------ keys
    def keys_now(self) -> tuple[list[str], dict[str, str]]:
        if self.running:
            return ["translate.stop", *(["translate.tokens"] if self.typing else _WARMTH)], {}
        again = ["translate.again"] if self.exchange else []
        if self.typing:
            ids = ["source.submit", *again, "translate.tokens", "translate.clear", "mode.train", "app.model"]
            return ids, {"translate.tokens": "knobs" if not again else "tokens and knobs"}
        walk = ["tokens.previous", "tokens.next"] if self.exchange else []
        ids = ["translate.edit", *walk, *again, *_WARMTH]
        return [*ids, "sampling.decode", "sampling.stages"], {}

    async def action_escape(self) -> None:
        if self.running and self._stream is not None:
            self._say("stopping")
            await self._stream.cancel()
        elif self.running and self.exchange is not None:  # still waiting for the model
            self.exchange.cancelled = True
            self.workers.cancel_group(self, "generate")
        elif self.typing:
            self.target.focus()
        else:
            self.target.select(0, None)

    def action_again(self) -> None:
        self.translate(self.exchange.source if self.exchange and not self.typing else self.source.text)

    def action_clear(self) -> None:
        self.source.clear()
        self.source.focus()

    def action_edit(self) -> None:
        self.source.focus()

    def action_switch_focus(self) -> None:
        (self.target if self.source.has_focus else self.source).focus()

    def action_copy(self) -> None:
        if self.exchange:
            self.app.copy_to_clipboard(self.exchange.text)
            self.notify("Copied, where the terminal allows it (OSC 52).", markup=False)

    def action_recall(self, by: int) -> None:
        """Show an older or newer exchange again, with all its tokens."""
        if not self.history or self.running:
            return
        index = self.history.index(self.exchange) if self.exchange in self.history else len(self.history)
        self._show(self.history[min(max(index + by, 0), len(self.history) - 1)])

    def _show(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.source.text = exchange.source
        self.source.move_cursor(self.source.document.end)
        self.target.begin(len(exchange.lines))
        for place, tokens in enumerate(exchange.tokens):
            for token in tokens:
                self.target.append(place, token.piece, mark=token.settings_mark)
            if not tokens:
                self.target.replace(place, exchange.text.split("\n")[place])
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
_SAME = "The same text, settings and seed make the same translation: s for another seed, T for more heat."
_SAME_BEAM = "Beam search makes the same translation every time: d for sampling, W for a wider beam."


def _same(before: Exchange, now: Exchange) -> bool:
    return before.source == now.source and before.decoding == now.decoding and not before.cancelled


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
