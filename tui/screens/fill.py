"""Fill: a text with masks, what may stand in each, and draws from all of it."""

from __future__ import annotations

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
from tfm.core.sampling.settings import PRESETS
from tfm.tui import clipboard, keymap
from tfm.tui.client import EngineProblem
from tfm.tui.filled import FilledWork
from tfm.tui.gaps import MASK, Gap, GapText, word_at
from tfm.tui.keeper import Keeper
from tfm.tui.screens.kept_screen import SAVE_EVERY
from tfm.tui.screens.knob_screen import KnobScreen
from tfm.tui.widgets.gap_view import MOST, CandidateList, FilledText, about
from tfm.tui.widgets.lines import name_box
from tfm.tui.widgets.sampling_panel import Decoding, SamplingPanel
from tfm.tui.widgets.source_input import PASTE_LIMIT, SourceInput
from tfm.tui.works import fills

PAUSE = 0.15  # seconds without a key after which the model is asked about what was typed
ORDERS = ("surest first", "left to right", "all at once")
EXAMPLE = f"A man in a blue {MASK} is standing on a {MASK} cleaning a window."


class FillInput(SourceInput):
    """The text. Words in it are masked in place."""

    BINDINGS: ClassVar[list[BindingType]] = [*keymap.FILL_TEXT]


class FillScreen(KnobScreen):
    MODE = "fill"
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.FILL, *keymap.KNOBS]
    AUTO_FOCUS = "#text"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (70, "-normal"), (120, "-wide")]  # from so many cells on
    VERTICAL_BREAKPOINTS = [(0, "-short"), (20, "-medium"), (34, "-tall")]

    def __init__(self) -> None:
        super().__init__()
        self.gaps = GapText(EXAMPLE)
        self.order = ORDERS[0]
        self.keeper = Keeper(fills(), self._complain)
        self._kept = FilledWork()
        self._drawing = False
        self._pause: Timer | None = None

    # ------------------------------------------------------------------ layout
    def body(self) -> Iterable[Widget]:
        with Horizontal(id="fill"):
            with Vertical(id="texts"):
                yield FillInput(
                    EXAMPLE, id="text", classes="box", soft_wrap=True, compact=True, show_line_numbers=False
                )
                yield FilledText(id="filled", classes="box")
            with Vertical(id="side"):
                yield CandidateList(id="rivals", classes="box")
                decoding = Decoding(settings=PRESETS["balanced"])
                yield SamplingPanel(decoding, beams=False, id="sampling", classes="box")

    def on_mount(self) -> None:
        self.source.cursor_blink = False  # nothing moves unless something happened
        self.source.move_cursor(self.source.document.end)
        name_box(self.source, title="Text", subtitle=self.told("{fill.mask} masks a word"))
        self.set_interval(SAVE_EVERY, self.keeper.keep_up)
        self._reopen()
        self._show()
        self._ask()

    def keep(self) -> None:
        self.keeper.save_now()

    # ------------------------------------------------------------------ kept
    def _reopen(self) -> None:
        """The text as it was left, with what stood in its masks."""
        latest, damaged = self.keeper.store.reopened()
        if damaged:
            self._complain(damaged)
        if latest is None or latest.empty:
            return
        self._kept, self.gaps = latest, latest.text
        self.order = latest.order if latest.order in ORDERS else self.order
        if latest.decoding is not None:
            self.panel.decoding = latest.decoding
        self.source.text = latest.source
        self.source.move_cursor(self.source.document.end)
        self.filled.here = min(latest.here, max(len(self.gaps.gaps) - 1, 0))

    def _keep(self) -> None:
        """Everything on the screen is what is kept."""
        kept = self._kept
        if self.gaps.source == EXAMPLE and not kept.key:
            return  # nothing of a person's own yet
        kept.started = kept.started or time.time()
        kept.source, kept.gaps, kept.here = self.gaps.source, self.gaps.gaps, self.filled.here
        kept.order, kept.decoding = self.order, self.panel.decoding
        self.keeper.changed(kept)

    def _complain(self, sentence: str) -> None:
        self.app.call_later(lambda: self.notify(sentence, severity="error", markup=False, timeout=15))

    @property
    def source(self) -> FillInput:
        return self.query_one(FillInput)

    @property
    def filled(self) -> FilledText:
        return self.query_one(FilledText)

    @property
    def gap(self) -> Gap | None:
        """The mask that keys act on."""
        return self.gaps.gaps[self.filled.here] if self.filled.here < len(self.gaps.gaps) else None

    # ------------------------------------------------------------------ what is shown
    def _show(self) -> None:
        filled, rivals = self.filled, self.query_one(CandidateList)
        self._keep()
        filled.text = self.gaps
        n_gaps = len(self.gaps.gaps)
        filled.here = min(filled.here, max(n_gaps - 1, 0))
        filled.repaint()
        rivals.gap = self.gap
        rivals.repaint()
        name_box(filled, title="Filled", subtitle="drawing" if self._drawing else f"draws {self.order}")
        gap = self.gap
        entropy = f" · entropy {gap.entropy:.1f}" if gap and gap.candidates else ""
        name_box(
            rivals,
            title=f"Mask {filled.here + 1} of {n_gaps}{entropy}" if n_gaps else "Mask",
            subtitle=about(gap) if gap else "",
        )
        self.refresh_keys()

    def _mark(self, candidate: int) -> None:
        rivals = self.query_one(CandidateList)
        n = min(len(self.gap.candidates), MOST) if self.gap else 0
        rivals.marked = min(max(candidate, 0), max(n - 1, 0))
        rivals.repaint()

    # ------------------------------------------------------------------ asking the model
    @on(TextArea.Changed)
    def _text_changed(self) -> None:
        if self.source.text == self.gaps.source:
            return
        new = GapText(self.source.text)
        new.inherit(self.gaps)
        self.gaps = new
        self.filled.here = self._gap_at_cursor()
        self._mark(0)
        self._show()
        if self._pause is not None:
            self._pause.stop()
        self._pause = self.set_timer(PAUSE, self._ask)

    def _gap_at_cursor(self) -> int:
        """The mask under the cursor, else the last one before it."""
        row, column = self.source.cursor_location
        lines = self.source.text.split("\n")
        before = "\n".join([*lines[:row], lines[row][:column]])
        inside = word_at(lines[row], column)
        if inside is not None and MASK.startswith(lines[row][inside[0] : column]):
            before = "\n".join([*lines[:row], lines[row][: inside[1]]])
        return max(len(GapText(before).gaps) - 1, 0)

    @work(exclusive=True, group="ask")
    async def _ask(self) -> None:
        """What may stand in each mask; in the one that keys act on, even where a word was taken."""
        opened = [self.filled.here] if self.gap is not None and self.gap.taken else []
        try:
            await self._query(self.gaps, opened)
        except EngineProblem as problem:
            self._problem(str(problem))
        else:
            self._problem("")

    async def _query(self, gaps: GapText, opened: list[int]) -> protocol.Filled | None:
        """Ask about what is open. None: nothing is. Raises EngineProblem."""
        model = await self.session.ready()
        text, masks = gaps.request(opened)
        if not masks:
            return None
        now = self.panel.decoding
        answer = await self.session.client.ask(
            protocol.Fill(
                id=0, model=model.info.name, text=text, n_top=MOST, settings=now.settings, seed=now.seed
            ),
            protocol.Filled,
        )
        if len(answer.masks) == len(masks):
            gaps.answer(masks, answer.masks)
        return answer

    def _problem(self, sentence: str) -> None:
        self.filled.problem = sentence
        self._show()

    def refresh_status(self) -> None:
        super().refresh_status()
        if self.is_mounted and self.session.problem and not self.session.info:
            self._problem(self.session.problem)

    def decode_with(self, decoding: Decoding) -> None:
        super().decode_with(decoding)
        self._ask()

    # ------------------------------------------------------------------ drawing
    @work(exclusive=True, group="ask")
    async def _draw(self) -> None:
        """Draw a word for each mask that no person took one for. One after the other, each knows those
        before it; all at once, none knows of any."""
        gaps = self.gaps
        left = [number for number, gap in enumerate(gaps.gaps) if not gap.by_hand]
        for number in left:
            gaps.open(number)
        self._drawing = True
        self._show()
        try:
            while left and gaps is self.gaps:
                _, masks = gaps.request()
                answer = await self._query(gaps, [])
                if answer is None or len(answer.masks) != len(masks):
                    break
                drawn = dict(zip(masks, (mask.drawn for mask in answer.masks), strict=True))
                for number in self._next(gaps, left):
                    left.remove(number)
                    candidate = drawn[number]
                    if candidate is not None:
                        gaps.take(number, candidate, by_hand=False)
                self._show()
        except EngineProblem as problem:
            self._problem(str(problem))
        finally:
            self._drawing = False
            if self.query(FilledText):  # the end of the app cancels this, too
                self._show()

    def _next(self, gaps: GapText, left: list[int]) -> list[int]:
        """Which of the masks that are left get their words in this step."""
        if self.order == "all at once":
            return list(left)
        if self.order == "left to right":
            return [left[0]]
        return [min(left, key=lambda number: gaps.gaps[number].entropy)]

    def action_again(self) -> None:
        if not self.gaps.gaps:
            sentence = "There is no mask yet: put the cursor on a word and press {fill.mask}."
            self.notify(self.told(sentence), markup=False)
            return
        if any(gap.taken and not gap.by_hand for gap in self.gaps.gaps):  # drawn before: other words, please
            now = self.panel.decoding
            self.panel.decoding = msgspec.structs.replace(now, seed=now.seed + 1)
        self._draw()

    def action_order(self) -> None:
        self.order = ORDERS[(ORDERS.index(self.order) + 1) % len(ORDERS)]
        self._show()

    # ------------------------------------------------------------------ masks
    @on(FilledText.Walk)
    def _walk(self, event: FilledText.Walk) -> None:
        self._go(self.filled.here + event.by)

    def _go(self, number: int) -> None:
        if self.gaps.gaps:
            self.filled.here = min(max(number, 0), len(self.gaps.gaps) - 1)
            self._mark(0)
            self._show()
            self._ask()

    @on(FilledText.Choose)
    def _choose(self, event: FilledText.Choose) -> None:
        self._mark(self.query_one(CandidateList).marked + event.by)

    @on(FilledText.Take)
    def _take(self, event: FilledText.Take) -> None:
        """Take a candidate and go on to the next mask that is open."""
        rank = event.rank or self.query_one(CandidateList).marked + 1
        gap = self.gap
        if gap is None or rank > min(len(gap.candidates), MOST):
            return
        here = self.filled.here
        self.gaps.take(here, gap.candidates[rank - 1])
        n_gaps = len(self.gaps.gaps)
        ahead = [(here + step) % n_gaps for step in range(1, n_gaps)]
        self._go(next((number for number in ahead if not self.gaps.gaps[number].taken), here))

    @on(FilledText.Open)
    def _open(self) -> None:
        if self.gap is not None:
            self.gaps.open(self.filled.here)
            self._go(self.filled.here)

    def action_open_all(self) -> None:
        for number in range(len(self.gaps.gaps)):
            self.gaps.open(number)
        self._go(self.filled.here)

    # These keys are acted on at once, while characters typed before them may still wait in the editor's
    # queue: so what they do to the text queues up behind those.
    def action_mask(self) -> None:
        self.source.call_later(self._mask_word)

    def action_clear(self) -> None:
        self.source.call_later(self.source.clear)
        self.source.focus()

    def _mask_word(self) -> None:
        """Mask the word under the cursor; a mask becomes the word that was there, or the likeliest one."""
        row, column = self.source.cursor_location
        line = self.source.text.split("\n")[row]
        found = word_at(line, column)
        if found is None:
            self.notify("Put the cursor on a word first.", markup=False)
            return
        start, end = found
        word = line[start:end]
        gap = self.gap if len(GapText(word).gaps) else None
        if gap is not None:
            shown = gap.hidden or (gap.shown.piece.strip() if gap.shown else "")
            self.source.replace(shown, (row, start), (row, end))
        else:
            self.source.replace(MASK, (row, start), (row, end))
            self._text_changed()  # now, so that the new mask is there to remember the word
            self.gaps.gaps[self._gap_at_cursor()].hidden = word
        self._text_changed()
        self._show()

    def action_use(self) -> None:
        self.source.text = self.gaps.text
        self.source.move_cursor(self.source.document.end)
        self.source.focus()

    # ------------------------------------------------------------------ focus and keys
    def keys_now(self) -> tuple[list[str], dict[str, str]]:
        if self.typing:
            draw = ["fill.again"] if self.gaps.gaps else []
            return ["fill.mask", "text.done", *draw, "fill.clear", "app.model"], {}
        ids = [
            "gaps.take1",
            "gaps.previous",
            "gaps.next",
            "fill.again",
            "gaps.open",
            "fill.order",
            "fill.use",
        ]
        return [*ids, "fill.write"], {"gaps.take1": "…9 take"}

    @on(SourceInput.Submitted)
    def _submitted(self) -> None:
        self.filled.focus()

    @on(SourceInput.PasteRefused)
    def _paste_refused(self, event: SourceInput.PasteRefused) -> None:
        sentence = f"That paste holds {event.length:,} characters and the text takes {PASTE_LIMIT:,}."
        self.notify(sentence, severity="warning", markup=False)

    @property
    def running(self) -> bool:
        return self._drawing

    def action_escape(self) -> None:
        if self._drawing:
            self.workers.cancel_group(self, "ask")
        elif self.typing:
            self.set_focus(self.filled)

    def action_switch_focus(self) -> None:
        self.set_focus(self.filled if self.source.has_focus else self.source)  # now: letters may follow

    def action_write(self) -> None:
        self.set_focus(self.source)  # now: text may follow

    def action_copy(self) -> None:
        clipboard.copy(self.app, self.gaps.text, "the filled text")
