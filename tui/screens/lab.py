"""Lab: a model reads a text token by token; at each, its rivals and what the chain makes of them."""

from __future__ import annotations

from collections.abc import Iterable
from math import exp
from typing import ClassVar, NamedTuple

from textual import on, work
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.timer import Timer
from textual.widget import Widget

from tfm.core.engine import protocol
from tfm.core.engine.protocol import Lane, ModelLoaded, ScoredToken
from tfm.core.sampling.settings import PRESETS
from tfm.tui import clipboard, keymap
from tfm.tui.client import EngineProblem, Refused
from tfm.tui.gaps import MASK
from tfm.tui.screens.knob_screen import KnobScreen
from tfm.tui.widgets.chain_view import ChainView
from tfm.tui.widgets.lines import name_box
from tfm.tui.widgets.sampling_panel import Decoding, SamplingPanel
from tfm.tui.widgets.source_input import PASTE_LIMIT, SourceInput
from tfm.tui.widgets.token_panel import TokenPanel
from tfm.tui.widgets.token_table import TableHead, TokenTable

PAUSE = 0.1  # seconds on one token, or with one setting, after which the model is asked about it
N_RIVALS = 12
GIVEN = "A man in a blue shirt is standing on a ladder."
EXAMPLES = {  # by family: something to look at from the start
    "encoder-decoder": "Ein Mann in einem roten Hemd steht auf einer Leiter.",  # red, and not blue
    "decoder-only": "I like to read books in the evening, and then I eat my socks.",
    "encoder-only": "A man in a blue shirt is standing on a piano cleaning a window.",
}


class Reading(NamedTuple):
    """A text as a model read it."""

    model: str
    family: str
    source: str
    ids: tuple[int, ...]  # of the whole text
    skipped: int  # tokens at its beginning that nothing could be said about
    scored: protocol.Scored

    @property
    def tokens(self) -> tuple[ScoredToken, ...]:
        return self.scored.tokens


class LabInput(SourceInput):
    """The text that is looked at, or the one that it translates."""

    BINDINGS: ClassVar[list[BindingType]] = [*keymap.LAB_TEXT]


class LabScreen(KnobScreen):
    MODE = "lab"
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.LAB, *keymap.KNOBS]
    AUTO_FOCUS = "#tokens"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (70, "-normal"), (120, "-wide")]  # from so many cells on
    VERTICAL_BREAKPOINTS = [(0, "-short"), (20, "-medium"), (34, "-tall")]

    def __init__(self) -> None:
        super().__init__()
        self.reading: Reading | None = None
        self._family = ""  # that the texts and the example are laid out for
        self._pause: Timer | None = None

    # ------------------------------------------------------------------ layout
    def body(self) -> Iterable[Widget]:
        with Horizontal(id="lab"):
            with Vertical():
                for id in ("given", "looked"):
                    yield LabInput(
                        id=id, classes="box", soft_wrap=True, compact=True, show_line_numbers=False
                    )
                with Vertical(id="look", classes="box"):
                    yield TableHead()
                    yield TokenTable(id="tokens")
            with Vertical(id="side"):
                decoding = Decoding(settings=PRESETS["balanced"])
                yield SamplingPanel(decoding, beams=False, id="sampling", classes="box")
                yield ChainView(id="chain", classes="box")
        yield TokenPanel(id="candidates")

    def on_mount(self) -> None:
        for box in self.query(LabInput):
            box.cursor_blink = False  # nothing moves unless something happened
        self.given.display = False
        name_box(self.given, title="Given", subtitle="what it translates")
        name_box(self.looked, title="Text")
        name_box(self.query_one(ChainView), title="The chain at this token")
        self._note(self.told("Any text; {lab_text.look} lets the model read it."))
        self._lay_out()

    @property
    def given(self) -> LabInput:
        return self.query_one("#given", LabInput)

    @property
    def looked(self) -> LabInput:
        return self.query_one("#looked", LabInput)

    @property
    def table(self) -> TokenTable:
        return self.query_one(TokenTable)

    def refresh_status(self) -> None:
        super().refresh_status()
        if self.is_mounted:
            self._lay_out()

    def _lay_out(self) -> None:
        """What the family of the model needs: a source beside the text or none, an example to begin with."""
        info = self.session.info
        if info is None:
            if self.session.problem:
                self._note(self.session.problem, "bad")
            return
        if info.family == self._family and (self.reading is None or self.reading.model == info.name):
            return
        before, self._family = self._family, info.family
        self.given.display = info.family == "encoder-decoder"
        if not self.given.text:
            self.given.text = GIVEN
        if self.looked.text in ("", EXAMPLES.get(before)):
            self.looked.text = EXAMPLES[info.family]
        self.look()

    # ------------------------------------------------------------------ reading
    @on(SourceInput.Submitted)
    def _submitted(self) -> None:
        self.table.focus()
        self.look()

    @on(SourceInput.PasteRefused)
    def _paste_refused(self, event: SourceInput.PasteRefused) -> None:
        sentence = f"That paste holds {event.length:,} characters and the text takes {PASTE_LIMIT:,}."
        self.notify(sentence, severity="warning", markup=False)

    @work(exclusive=True, group="look")
    async def look(self) -> None:
        """Let the model read the text."""
        try:
            model = await self.session.ready()
            self.reading = None
            reading = await self._read(model)
        except EngineProblem as problem:
            self._note(str(problem) if not isinstance(problem, Refused) else _sentence(str(problem)), "bad")
            return
        self.reading = reading
        self.table.show(reading.tokens)
        self.session.context(len(reading.tokens))
        scored, n_tokens = reading.scored, len(reading.tokens)
        kind = "pseudo-perplexity" if reading.family == "encoder-only" else "perplexity"
        figure = f"{scored.perplexity:,.1f}" if scored.perplexity < 1e6 else f"{scored.perplexity:.1e}"
        first = sum(token.rank == 1 for token in reading.tokens)
        name_box(
            self.query_one("#look"),
            title=f"{n_tokens} tokens · {kind} {figure} · log p {scored.logprob:.1f}",
            subtitle=f"first choice {first / max(n_tokens, 1):.0%}",
        )
        self._ask_soon(0)
        self.refresh_keys()

    async def _read(self, model: ModelLoaded) -> Reading:
        """Raises EngineProblem."""
        client, info = self.session.client, model.info
        text = self.looked.text
        source = self.given.text if info.family == "encoder-decoder" else ""
        scored = await client.ask(
            protocol.Score(id=0, model=info.name, text=text, source=source), protocol.Scored
        )
        pieces = await client.ask(protocol.Tokenize(id=0, model=info.name, texts=(text,)), protocol.Tokenized)
        ids = tuple(token.token for token in pieces.texts[0])
        skipped = max(0, len(ids) - len(scored.tokens))
        return Reading(info.name, info.family, source, ids, skipped, scored)

    def _note(self, sentence: str, style: str = "faint") -> None:
        self.reading = None
        self.table.say(sentence, style)
        name_box(self.query_one("#look"), title="Tokens", subtitle="")
        self.query_one(TokenPanel).title("token")
        self.query_one(TokenPanel).token(None, "The rivals of the chosen token and their chances show here.")
        self.query_one(ChainView).chain((), "What each stage leaves\nshows here.")

    # ------------------------------------------------------------------ one token
    @on(TokenTable.Chosen)
    def _chosen(self) -> None:
        self._ask_soon(PAUSE)

    def decode_with(self, decoding: Decoding) -> None:
        super().decode_with(decoding)
        self._ask_soon(PAUSE)

    def _ask_soon(self, seconds: float) -> None:
        """Ask about the chosen token once the keys rest."""
        if self._pause is not None:
            self._pause.stop()
        self._pause = self.set_timer(max(seconds, 0.001), self._ask)

    @work(exclusive=True, group="ask")
    async def _ask(self) -> None:
        """The rivals of the chosen token, and each stage of the chain there."""
        reading = self.reading
        if reading is None or not reading.tokens or not self.query(TokenTable):  # the app may be closing
            return
        here = self.table.here
        token = reading.tokens[here]
        panel, chain = self.query_one(TokenPanel), self.query_one(ChainView)
        panel.title(
            f"token {here + 1} of {len(reading.tokens)} · rank {token.rank:,} · entropy {token.entropy:.2f}"
        )
        now = self.panel.decoding
        client = self.session.client
        try:
            if reading.family == "encoder-only":
                text = _masked(reading.tokens, here)
                filled = await client.ask(
                    protocol.Fill(id=0, model=reading.model, text=text, n_top=N_RIVALS, settings=now.settings,
                                  seed=now.seed),
                    protocol.Filled,
                )  # fmt: skip
                top = filled.masks[0].candidates if filled.masks else ()
                trace: tuple[protocol.StageReport, ...] = ()
            else:
                lane = Lane(
                    prompt=reading.source, settings=now.settings, seed=now.seed,
                    prefix=reading.ids[: here + reading.skipped],
                )  # fmt: skip
                drawn = await client.ask(
                    protocol.Generate(
                        id=0, model=reading.model, lanes=(lane,), max_tokens=1, n_top=N_RIVALS, trace=True
                    ),
                    protocol.Token,
                )
                top, trace = drawn.top, drawn.trace
        except EngineProblem as problem:
            panel.token(None, str(problem))
            chain.chain(())
            return
        panel.token(_as_token(token, here, top))
        note = "A mask has rivals and no chain\nof earlier tokens." if not trace else ""
        chain.chain(trace, note)

    # ------------------------------------------------------------------ focus and keys
    def keys_now(self) -> tuple[list[str], dict[str, str]]:
        if self.typing:
            return ["lab_text.look", "lab.tokens", "lab_text.newline", "app.model"], {}
        walk = ["look.previous", "look.next", "look.next_surprise"] if self.reading else []
        return [
            *walk,
            "temperature.lower",
            "temperature.raise",
            "sampling.stages",
            "lab.write",
            "app.model",
        ], {}

    def action_escape(self) -> None:
        if self.typing:
            self.set_focus(self.table)

    def action_switch_focus(self) -> None:
        stops: list[Widget] = [self.given, self.looked, self.table]
        order = [stop for stop in stops if stop.display]
        at = next((number for number, stop in enumerate(order) if stop.has_focus), -1)
        self.set_focus(order[(at + 1) % len(order)])

    def action_write(self) -> None:
        self.set_focus(self.looked)  # now: text may follow

    def action_copy(self) -> None:
        if self.reading is None:
            return
        rows = ["token\tprobability\tlog_probability\trank\tentropy"]
        rows += [
            f"{token.piece!r}\t{exp(token.logprob):.6f}\t{token.logprob:.4f}\t{token.rank}\t{token.entropy:.4f}"
            for token in self.reading.tokens
        ]
        clipboard.copy(self.app, "\n".join(rows) + "\n", "the tokens as a table")


def _masked(tokens: tuple[ScoredToken, ...], here: int) -> str:
    """The text with a mask in place of one token."""
    pieces = [token.piece for token in tokens]
    gap = " " if pieces[here].startswith(" ") else ""
    return "".join(pieces[:here]) + gap + MASK + "".join(pieces[here + 1 :])


def _as_token(token: ScoredToken, here: int, top: tuple[protocol.Candidate, ...]) -> protocol.Token:
    """The token of the text as the rivals' panel takes one: marked where it is among them."""
    return protocol.Token(
        id=0, lane=0, position=here, token=token.token, piece=token.piece, logprob=token.logprob,
        entropy=token.entropy, probability=exp(token.logprob), top=top,
    )  # fmt: skip


def _sentence(text: str) -> str:
    """What the engine says, as a sentence."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
