"""Logit biases and banned tokens: named by their text or their id, looked up in the model's vocabulary."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar, NamedTuple

from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.geometry import Region

from tfm.core.engine.protocol import Tokenized, VocabularyToken
from tfm.core.sampling.settings import SamplingSettings
from tfm.tui import keymap
from tfm.tui.client import EngineProblem
from tfm.tui.safe_text import plain, safe_text
from tfm.tui.screens.overlay import Overlay
from tfm.tui.screens.prompt import Choice, Prompt
from tfm.tui.widgets.cells import Row
from tfm.tui.widgets.lines import Lines
from tfm.tui.widgets.token_panel import visible_piece

Resolve = Callable[[Sequence[str], Sequence[int]], Awaitable[Tokenized]]
"""Asks the model's tokenizer what texts are made of and what ids stand for. Raises EngineProblem."""

FIRST = 2.0  # the bias that a new token gets
STEP = 0.5
MOST = 1e6
_ID = re.compile(r"#?(\d+)")
_ALL = "all"


class Biased(NamedTuple):
    """A token that has a bias, or is banned (``-inf``)."""

    token: int
    bias: float


def biased(settings: SamplingSettings) -> list[Biased]:
    found = {**settings.logit_bias, **dict.fromkeys(settings.banned, -math.inf)}
    return [Biased(token, bias) for token, bias in sorted(found.items())]


def with_bias(settings: SamplingSettings, token: int, bias: float | None) -> SamplingSettings:
    """With this bias for a token; ``-inf`` bans it, None takes it out. Raises ValueError."""
    others = {t: b for t, b in settings.logit_bias.items() if t != token}
    banned = tuple(t for t in settings.banned if t != token)
    if bias == -math.inf:
        banned = tuple(sorted((*banned, token)))
    elif bias is not None:
        others[token] = bias
    return settings.replace(logit_bias=others, banned=banned)


class BiasList(Lines):
    """One row a token."""

    rows_of: Sequence[Biased] = ()
    names: dict[int, VocabularyToken] = {}
    row = 0

    def build(self, columns: int) -> list[Row]:
        if not self.rows_of:
            return [(("  No token has a bias: a adds one.", "dim"),)]
        return [self._line(number) for number in range(len(self.rows_of))]

    def _line(self, number: int) -> Row:
        token, bias = self.rows_of[number]
        here = number == self.row
        named = self.names.get(token)
        value = "banned" if bias == -math.inf else f"{bias:+.2f}"
        return (
            ("▸ " if here else "  ", "live"),
            (f"{value:>8}  ", "bad" if bias == -math.inf else "strong"),
            (visible_piece(named.piece) if named else "(not looked up)", "strong" if here else ""),
            (f"  #{token}", "dim"),
            ("  a mark, no text" if named and named.special else "", "faint"),
        )


class TokenBiases(Overlay[None]):
    """Every change goes to ``on_change`` at once."""

    BINDINGS: ClassVar[list[BindingType]] = [*keymap.BIASES]

    def __init__(
        self, settings: SamplingSettings, on_change: Callable[[SamplingSettings], None], resolve: Resolve
    ) -> None:
        super().__init__()
        self._settings, self._on_change, self._resolve = settings, on_change, resolve

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog", can_focus=False) as dialog:
            dialog.border_title = plain("Logit bias and banned tokens")
            dialog.border_subtitle = plain(
                self.told(
                    "{biases.add} add · {biases.lower} {biases.raise} turn · {biases.exact} type · "
                    "{biases.ban} ban · {biases.take_out} take out · {biases.close} back"
                )
            )
            yield BiasList()

    @property
    def shown(self) -> BiasList:
        return self.query_one(BiasList)

    @property
    def chosen(self) -> Biased | None:
        return self.shown.rows_of[self.shown.row] if self.shown.rows_of else None

    def on_mount(self) -> None:
        self._show()
        if self.shown.rows_of:
            self._look_up([one.token for one in self.shown.rows_of])
        else:
            self.action_add()

    def _show(self, token: int | None = None) -> None:
        """List anew; ``token`` is then the chosen one."""
        shown = self.shown
        shown.rows_of = biased(self._settings)
        tokens = [one.token for one in shown.rows_of]
        shown.row = tokens.index(token) if token in tokens else min(shown.row, max(len(tokens) - 1, 0))
        shown.repaint()
        self.query_one(VerticalScroll).scroll_to_region(Region(0, shown.row, 1, 1), animate=False)

    def _set(self, token: int, bias: float | None) -> None:
        settings = with_bias(self._settings, token, bias)
        if settings != self._settings:
            self._settings = settings
            self._on_change(settings)
        self._show(token)

    def _learn(self, tokens: Sequence[VocabularyToken]) -> None:
        self.shown.names = {**self.shown.names, **{one.token: one for one in tokens}}
        self.shown.repaint()

    @work(group="look-up")
    async def _look_up(self, ids: Sequence[int]) -> None:
        """What the tokens are called; without an engine their ids have to do."""
        try:
            self._learn((await self._resolve((), ids)).ids)
        except EngineProblem as problem:
            self.notify(str(problem), severity="warning", markup=False)

    # ------------------------------------------------------------------ keys
    def action_move(self, by: int) -> None:
        if n := len(self.shown.rows_of):
            self._show(self.shown.rows_of[(self.shown.row + by) % n].token)

    def action_turn(self, by: int) -> None:
        if self.chosen:
            bias = 0.0 if self.chosen.bias == -math.inf else self.chosen.bias
            self._set(self.chosen.token, min(max(round(bias + by * STEP, 6), -MOST), MOST))

    def action_ban(self) -> None:
        if self.chosen:
            self._set(self.chosen.token, FIRST if self.chosen.bias == -math.inf else -math.inf)

    def action_take_out(self) -> None:
        if self.chosen:
            self._set(self.chosen.token, None)

    def action_exact(self) -> None:
        chosen = self.chosen
        if chosen is None:
            self.action_add()
            return

        def done(text: str | None) -> None:
            if text is not None:
                self._set(chosen.token, _bias_of(text))

        now = "-inf" if chosen.bias == -math.inf else f"{chosen.bias:g}"
        hint = "A number of nats is added to the logit; -inf bans the token."
        self.app.push_screen(Prompt(f"Bias of #{chosen.token}", text=now, hint=hint, check=_bias_of), done)

    @work(exclusive=True, group="add")
    async def action_add(self) -> None:
        """Ask for a token, and where its text is several, which of them."""
        found: list[VocabularyToken] = []

        async def look_up(text: str) -> str:
            found[:] = await self._find(text)
            return text

        hint = "Its text as it is written, or its id: Hund, “#318”."
        text = await self.app.push_screen_wait(Prompt("Which token?", hint=hint, act=look_up))
        if text is None:
            return
        self._learn(found)
        chosen = found
        if len(found) > 1:
            rows = [(str(one.token), _option(one)) for one in found]
            everything = (_ALL, Content(f"all {len(found)} of them"))
            name = await self.app.push_screen_wait(Choice(f"Tokens of {text!r}", [*rows, everything]))
            chosen = [one for one in found if name in (_ALL, str(one.token))]
        for one in chosen:
            self._set(one.token, FIRST)

    async def _find(self, text: str) -> list[VocabularyToken]:
        """The tokens that a text may be: as the beginning of a text, and inside one. Raises ValueError."""
        number = _ID.fullmatch(text.strip())
        literal = text.strip().strip('"“”') if text.strip()[:1] in ('"', "“") else text
        if not literal:
            raise ValueError("Write the text of a token, or its id with # before it.")
        try:
            if number is not None:
                return list((await self._resolve((), (int(number[1]),))).ids)
            told = await self._resolve((literal, f" {literal.lstrip()}"), ())
        except EngineProblem as problem:
            raise ValueError(str(problem)) from None
        found = {one.token: one for tokens in told.texts for one in tokens}
        if not found:
            raise ValueError("This text has no tokens.")
        return list(found.values())


def _option(token: VocabularyToken) -> Content:
    piece = Content(safe_text(visible_piece(token.piece)))
    return piece + Content.styled(f"  #{token.token}", "$quiet")


def _bias_of(text: str) -> float:
    """Raises ValueError with a sentence."""
    text = text.strip().lower()
    try:
        bias = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None
    if math.isnan(bias) or (bias != -math.inf and abs(bias) > MOST):
        raise ValueError(f"A bias lies between {-MOST:,.0f} and {MOST:,.0f}, or is -inf.")
    return bias
