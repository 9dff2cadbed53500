"""The whole sampling chain: every setting of every stage, in the order in which they run.

Turn a setting, type it, take it back; leave a stage out or move it; look at what is on or what changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.geometry import Region
from textual.widgets import Input

from tfm.core.sampling.settings import NEUTRAL, ORDERS, RANGES, SamplingSettings
from tfm.tui import chain, keymap
from tfm.tui.keys_file import Keys
from tfm.tui.presets import Found
from tfm.tui.safe_text import plain
from tfm.tui.screens.overlay import Overlay
from tfm.tui.screens.prompt import Prompt
from tfm.tui.screens.token_biases import Resolve, TokenBiases
from tfm.tui.widgets import knobs
from tfm.tui.widgets.cells import Row, spread
from tfm.tui.widgets.lines import Lines, keys_of
from tfm.tui.widgets.sampling_panel import preset_spans

VIEWS = ("everything", "what is on", "what changed")
WHOLE_RULES_FROM = 100  # columns
_SLIDER = 11
_PAGE = 8


class Entry(NamedTuple):
    """One row of the list."""

    stage: chain.Stage
    field: str
    first: bool  # of its stage's rows


def entries(settings: SamplingSettings, view: str, base: SamplingSettings, find: str) -> list[Entry]:
    """The rows that a view shows, in the order of the chain; stages that are left out come last."""
    order = [*settings.order, *(stage.name for stage in chain.STAGES if stage.name not in settings.order)]
    wanted = find.lower().split()
    found: list[Entry] = []
    for stage in map(chain.BY_NAME.__getitem__, order):
        rows = []
        for field in stage.fields:
            text = f"{chain.label(field)} {field} {stage.rule} {about(field)}".lower()
            if all(word in text for word in wanted) and _in_view(settings, view, base, stage, field):
                rows.append(field)
        found += [Entry(stage, field, index == 0) for index, field in enumerate(rows)]
    return found


def _in_view(
    settings: SamplingSettings, view: str, base: SamplingSettings, stage: chain.Stage, field: str
) -> bool:
    if view == "what is on":
        return chain.state(settings, stage.name) == "on"
    if view == "what changed":
        out = stage.name not in settings.order and stage.name in base.order
        return out or getattr(settings, field) != getattr(base, field)
    return True


def about(field: str) -> str:
    return chain.LISTS[field][1] if field in chain.LISTS else knobs.BY_FIELD[field].help


class Stages(Lines):
    """One row a setting, the chosen one marked."""

    settings = NEUTRAL
    base = NEUTRAL
    entries: tuple[Entry, ...] = ()
    row = 0

    def build(self, columns: int) -> list[Row]:
        if not self.entries:
            return [(("  Nothing here: v shows everything.", "dim"),)]
        return [self._line(number, columns) for number in range(len(self.entries))]

    def _line(self, number: int, columns: int) -> Row:
        stage, field, first = self.entries[number]
        here, settings = number == self.row, self.settings
        state = chain.state(settings, stage.name)
        neutral = getattr(settings, field) == getattr(NEUTRAL, field)
        on = state == "on" and not neutral
        place = str(settings.order.index(stage.name) + 1) if stage.name in settings.order else "–"
        was = getattr(settings, field) != getattr(self.base, field)
        name = chain.LISTS[field][0] if field in chain.LISTS else knobs.BY_FIELD[field].label
        indent = "  " if name.startswith("its ") else ""
        left: Row = (
            ("▸ " if here else "  ", "live"),
            (f"{place if first else '':>2} ", "faint"),
            (
                f"{indent}{name if not (indent and first) else chain.label(field):<20}"[:20],
                "strong" if here else ("" if on else "dim"),
            ),
            (" *" if was else "  ", "live"),
            (f"{chain.value_text(settings, field):<8}", "strong" if on else "dim"),
        )
        notes = {"left out": "left out of the chain", "replaced": f"{chain.replaced_by(stage.name)} is on"}
        told: Row = ((notes[state], "faint"),) if state in notes else ()
        if field in knobs.BY_FIELD and state != "left out":
            knob = knobs.BY_FIELD[field]
            left = (*left, *knobs.slider(knob, knobs.value_of(settings, knob), _SLIDER), ("  ", ""))
        else:
            left = (*left, (" " * (_SLIDER + 2), ""))
        if not told:
            whole = columns >= WHOLE_RULES_FROM and first
            told = ((stage.rule if whole else about(field), "" if here else "faint"),)
        return (*left, *told)


class StagesScreen(Overlay[None]):
    """Shows the chain; every change goes to ``on_change`` at once, also while a text is being written."""

    BINDINGS: ClassVar[list[BindingType]] = [*keymap.STAGES]
    AUTO_FOCUS = ""

    def __init__(
        self,
        settings: SamplingSettings,
        on_change: Callable[[SamplingSettings], None],
        *,
        presets: Found,
        base: str | None,
        resolve: Resolve,
        on_save: Callable[[], object],
    ) -> None:
        super().__init__()
        self._settings = settings
        self._on_change, self._on_save, self._resolve = on_change, on_save, resolve
        self._presets, self._base = presets, base
        self._view = VIEWS[0]
        self._find = ""

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog", id="stages") as dialog:
            dialog.border_title = plain("The sampling chain")
            yield Lines(id="chain-head")
            yield Input(placeholder="part of a name or a rule", id="chain-find")
            with VerticalScroll(id="chain-list", can_focus=False):
                yield Stages()
            yield Lines(id="chain-foot")

    @property
    def stages(self) -> Stages:
        return self.query_one(Stages)

    @property
    def chosen(self) -> Entry | None:
        entries = self.stages.entries
        return entries[self.stages.row] if entries else None

    def on_mount(self) -> None:
        self.query_one("#chain-find", Input).display = False
        self._list()
        self.call_after_refresh(self.choose, "temperature")  # once it is known how much is in sight

    # ------------------------------------------------------------------ what is shown
    def choose(self, field: str) -> None:
        """Go to a setting, where it is listed."""
        fields = [entry.field for entry in self.stages.entries]
        if field in fields:
            self._go(fields.index(field))

    def know(self, presets: Found) -> None:
        """Other presets are there."""
        self._presets = presets
        self._list()

    def _list(self) -> None:
        """List anew; the setting that was chosen stays chosen where it is still listed."""
        stages, chosen = self.stages, self.chosen
        self._base = self._presets.name_of(self._settings) or self._base
        stages.settings = self._settings
        stages.base = self._presets.all.get(self._base or "", NEUTRAL)
        stages.entries = tuple(entries(self._settings, self._view, stages.base, self._find))
        fields = [entry.field for entry in stages.entries]
        row = fields.index(chosen.field) if chosen and chosen.field in fields else stages.row
        self._go(min(row, max(len(fields) - 1, 0)))

    def _go(self, row: int) -> None:
        stages = self.stages
        stages.row = row
        stages.repaint()
        self.query_one("#chain-list", VerticalScroll).scroll_to_region(Region(0, row, 1, 1), animate=False)
        self._tell()

    def _tell(self) -> None:
        """The lines above and below the list."""
        settings, shown = self._settings, self.stages.entries
        n_all = len(chain.FIELDS)
        head: Row = (
            ("preset ", "dim"),
            *preset_spans(settings, self._presets, self._base),
            ("   order ", "dim"),
            (chain.order_name(settings.order), ""),
        )
        view = self._view if not self._find else f"{self._view} with “{self._find}”"
        count = ((f"{view}: ", "dim"), (f"{len(shown)} of {n_all}", "" if len(shown) == n_all else "live"))
        columns = self.query_one("#chain-head", Lines).size.width or 70
        self.query_one("#chain-head", Lines).show([spread(head, count, columns)])
        foot = self.query_one("#chain-foot", Lines)
        chosen = self.chosen
        told = (
            _about(settings, self.stages.base, self._base, chosen, keys_of(self)) if chosen else [(), (), ()]
        )
        columns = foot.size.width or 70
        foot.show([(("─" * columns, "line"),), *told, *_keys(columns, keys_of(self))])

    # ------------------------------------------------------------------ changing
    def _set(self, settings: SamplingSettings) -> None:
        if settings != self._settings:
            self._settings = settings
            self._on_change(settings)
        self._list()

    def action_move(self, by: int) -> None:
        if n := len(self.stages.entries):
            step = by * _PAGE if abs(by) > 1 else by
            row = self.stages.row + step
            self._go(min(max(row, 0), n - 1) if abs(by) > 1 else row % n)

    def action_edge(self, end: bool) -> None:
        self._go(max(len(self.stages.entries) - 1, 0) if end else 0)

    def action_turn(self, by: int) -> None:
        if self.chosen and self.chosen.field in knobs.BY_FIELD:
            self._set(knobs.turn(self._settings, knobs.BY_FIELD[self.chosen.field], by))
        elif self.chosen:
            self.action_exact()

    def action_neutral(self) -> None:
        if self.chosen:
            self._set(chain.reset(self._settings, self.chosen.field))

    def action_back_to_preset(self) -> None:
        """The chosen setting as the preset has it."""
        if self.chosen:
            self._set(chain.reset(self._settings, self.chosen.field, self.stages.base))

    def action_reset(self) -> None:
        self._set(NEUTRAL)

    def action_shift_stage(self, by: int) -> None:
        if self.chosen:
            self._set(chain.move(self._settings, self.chosen.stage.name, by))

    def action_leave_out(self) -> None:
        if self.chosen:
            self._set(chain.toggle(self._settings, self.chosen.stage.name))

    def action_order(self) -> None:
        self._set(chain.next_order(self._settings))

    def action_preset(self, by: int) -> None:
        self._set(self._presets.beside(self._base, by)[1])

    def action_save(self) -> None:
        self._on_save()

    def action_exact(self) -> None:
        if self.chosen is None:
            return
        field = self.chosen.field
        if field in ("logit_bias", "banned"):
            self.app.push_screen(TokenBiases(self._settings, self._set, self._resolve))
        elif field == "dry_breakers":
            self._ask_breakers()
        else:
            self._ask_number(field)

    def _ask_number(self, field: str) -> None:
        low, high = RANGES[field]
        neutral = f"{getattr(NEUTRAL, field):g}"

        def done(text: str | None) -> None:
            if text is not None:
                self._set(chain.set_typed(self._settings, field, text))

        self.app.push_screen(
            Prompt(
                chain.label(field),
                text=f"{getattr(self._settings, field):g}",
                hint=f"{about(field)}; {low:g} to {high:,g}, neutral {neutral}",
                check=lambda text: chain.set_typed(self._settings, field, text),
            ),
            done,
        )

    def _ask_breakers(self) -> None:
        def done(text: str | None) -> None:
            if text is not None:
                self._set(self._settings.replace(dry_breakers=chain.read_strings(text)))

        now = chain.write_strings(self._settings.dry_breakers)
        hint = r"Texts with spaces between them; \n is a new line, \s a space. A repetition ends at each."
        self.app.push_screen(Prompt("dry breakers", text=now, hint=hint), done)

    # ------------------------------------------------------------------ looking
    def action_view(self) -> None:
        self._view = VIEWS[(VIEWS.index(self._view) + 1) % len(VIEWS)]
        self._list()

    def action_find(self) -> None:
        find = self.query_one("#chain-find", Input)
        find.display = True
        find.focus()

    @on(Input.Changed, "#chain-find")
    def _finding(self, event: Input.Changed) -> None:
        self._find = event.value.strip()
        self._list()

    @on(Input.Submitted, "#chain-find")
    def _found(self) -> None:
        self.set_focus(None)

    def action_close(self) -> None:
        """One step back: out of the search, then out of the list."""
        find = self.query_one("#chain-find", Input)
        if find.display:
            find.value = ""
            find.display = False
            self.set_focus(None)
            self._find = ""
            self._list()
        else:
            self.dismiss()

    def on_resize(self) -> None:
        self.call_after_refresh(self._tell)


def _about(
    settings: SamplingSettings, base: SamplingSettings, name: str | None, entry: Entry, keys: Keys
) -> list[Row]:
    """Three lines about the chosen setting: the rule of its stage, what it is itself, where it stands."""
    stage, field = entry.stage, entry.field
    state = chain.state(settings, stage.name)
    rule: Row = ((f"{stage.label}: ", "strong"), (stage.rule, ""))
    what = about(field)
    if field in RANGES:
        low, high = RANGES[field]
        what += f" · {low:g} to {high:,g}, neutral {getattr(NEUTRAL, field):g}"
    if getattr(settings, field) != getattr(base, field):
        what += f" · {chain.value_text(base, field)} in {name or 'neutral'}"
    place = keys.told("left out: {stages.leave_out} takes it in")
    if stage.name in settings.order:
        place = f"{settings.order.index(stage.name) + 1} of {len(settings.order)} here"
    known = ", ".join(f"{order.index(stage.name) + 1} in {name}" for name, order in ORDERS.items())
    acts = {
        "on": "on",
        "neutral": "does nothing",
        "left out": "",
        "replaced": f"{chain.replaced_by(stage.name)} takes its place",
    }
    where = " · ".join(part for part in (acts[state], place, known) if part)
    itself = f"{chain.label(field)}: " if chain.label(field) != stage.label else ""
    return [rule, ((itself, ""), (what, "dim")), ((where, "dim"),)]


def _keys(columns: int, of_now: Keys) -> list[Row]:
    """What can be pressed, in as many rows as it takes up to two."""
    rows: list[list[tuple[str, str]]] = [[]]
    used = 0
    for ids, text in _KEYS:
        keys = of_now.told(ids)
        entry = f"{keys} {text}"
        if used and used + 3 + len(entry) > columns:
            if len(rows) == 2:
                break
            rows.append([])
            used = 0
        gap = "   " if used else ""
        rows[-1] += [(gap + keys, "key"), (f" {text}", "dim")]
        used += len(gap) + len(entry)
    return [tuple(row) for row in rows]


_KEYS = (
    ("{stages.lower} {stages.raise}", "turn"), ("{stages.exact}", "type"), ("{stages.neutral}", "neutral"),
    ("{stages.leave_out}", "leave out"), ("{stages.earlier} {stages.later}", "move"),
    ("{stages.order}", "order"), ("{stages.view}", "view"), ("{stages.find}", "find"),
    ("{stages.preset_previous} {stages.preset_next}", "preset"), ("{stages.save}", "save"),
    ("{stages.close}", "back"), ("{stages.as_preset}", "as in the preset"), ("{stages.reset}", "all neutral"),
)  # fmt: skip
