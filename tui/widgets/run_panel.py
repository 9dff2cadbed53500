"""The lines of the training panel: how far a run is, its figures, what came of it, which line is whose."""

from __future__ import annotations

from collections.abc import Sequence

from tfm.tui.curves import View
from tfm.tui.flops import mfu, model_flops
from tfm.tui.keys_file import Keys
from tfm.tui.machine import Machine
from tfm.tui.run_record import RunRecord, duration, short
from tfm.tui.widgets.braille import MARKS, PATTERNS, sample
from tfm.tui.widgets.cells import Row, Span, spread, width
from tfm.tui.widgets.lines import Lines
from tfm.tui.widgets.run_list import STATE_STYLE

_NEWS_STYLE = {"error": "bad", "warning": "live"}
_TALK = {"translation": "translate", "causal-lm": "generate", "masked-lm": "fill"}  # commands


class RunHead(Lines):
    """Two lines: what is trained and how far it is; how far the epoch is and what came last."""

    record: RunRecord | None = None

    def build(self, columns: int) -> Sequence[Sequence[Span]]:
        record = self.record
        if record is None:
            return []
        state = record.state
        total = record.started.total_steps if record.started else 0
        left: list[Span] = [
            (" ", ""),
            (record.run, "strong"),
            ("  ", ""),
            (state, STATE_STYLE.get(state, "")),
        ]
        left.append((f"   step {record.step_number:,} / {total:,}" if total else "", "dim"))
        right: list[Span] = []
        if record.eta is not None and state == "running":
            right += [("ETA ", "dim"), (duration(record.eta), "strong"), ("   ", "")]
        if record.step is not None:
            right.append((f"{short(record.step.tokens_per_second)} tok/s", "dim"))
        right.append((" ", ""))
        return [spread(tuple(left), tuple(right), columns), self._bars(record, columns)]

    def _bars(self, record: RunRecord, columns: int) -> Row:
        live = "live" if record.state in ("running", "starting") else "dim"
        epoch = int(record.step.epoch) + 1 if record.step else 1
        room = columns - 2 - width((("run  100 %     epoch 9999  100 %", ""),))
        whole, part = max(6, room * 3 // 5), max(4, room * 2 // 5)
        return (
            (" run ", "dim"),
            *bar(record.progress, whole, live),
            (f" {record.progress:4.0%}   ", ""),
            (f"epoch {epoch:,} ", "dim"),
            *bar(record.epoch_progress, part, live),
            (f" {record.epoch_progress:4.0%}", "dim"),
        )


class RunFigures(Lines):
    """How it learns, what it takes of the machine, what came last; when it has ended, what came of it."""

    record: RunRecord | None = None
    machine = Machine()

    def build(self, columns: int) -> Sequence[Sequence[Span]]:
        record = self.record
        if record is None:
            return []
        news: Row = ((f" {record.news}", _NEWS_STYLE.get(record.news_level, "dim")),)
        if not record.going_on:
            return [
                _outcome(record, columns),
                _best(record, columns),
                _what_now(record, self.keys_of_now),
                news,
            ]
        using = [*self.machine.figures(), *utilisation(record)]
        return [_row(learning(record), columns), _row(using, columns), news]


class Legend(Lines):
    """Which line is whose, where there are several; how the picture differs from the usual one."""

    records: Sequence[RunRecord] = ()
    view = View()

    def build(self, columns: int) -> Sequence[Sequence[Span]]:
        said = " · ".join(self.view.described())
        rows: list[Row] = [()]
        for entry in (*self._entries(), ((f" {said}", "dim"),) if said else ()):
            if rows[-1] and width((*rows[-1], *entry)) > columns:
                rows.append(())
            rows[-1] = (*rows[-1], *entry)
        return rows

    def _entries(self) -> list[Row]:
        """What each run's line looks like."""
        entries: list[Row] = []
        for number, record in enumerate(self.records if len(self.records) > 1 else ()):
            style = f"run{number + 1}"
            line = sample(PATTERNS[number], MARKS[number], style, 7)
            about = f" {record.state} {record.step_number:,}  "
            entries.append(((" ", ""), line, (f" {record.run}", style), (about, "dim")))
        return entries


# --------------------------------------------------------------------------- figures
def learning(record: RunRecord) -> list[tuple[str, str]]:
    """Names and values: how well it does, and how it is trained."""
    step, held_out, found = record.step, record.evaluated, []
    if held_out:
        found.append(("perplexity", f"{held_out.perplexity:.2f}"))
        found += [("chrF", f"{held_out.chrf:.1f}")] if held_out.chrf is not None else []
    if step:
        found += [("grad", f"{step.grad_norm:.2f}"), ("rate", f"{step.learning_rate:.2e}")]
        found += [("tokens", short(step.tokens)), ("trained", duration(step.seconds))]
    if record.started:
        found.append(("parameters", short(record.started.n_parameters)))
    if record.bad_lines:
        found.append(("unreadable lines", str(record.bad_lines)))
    return found


def utilisation(record: RunRecord) -> list[tuple[str, str]]:
    """Model FLOP/s and MFU, as :mod:`tfm.tui.flops` defines them."""
    started, step = record.started, record.step
    if started is None or step is None:
        return []
    rate = step.tokens_per_second
    many = f" in {started.processes} processes" if started.processes > 1 else ""
    each = rate / started.processes  # one process, one GPU
    share = mfu(started.n_parameters, each, started.device, started.precision)
    return [
        ("FLOP/s", short(model_flops(started.n_parameters, rate))),
        ("MFU", "-" if share is None else f"{share:.1%}"),
        ("on", f"{started.device} {started.precision}{many}"),
    ]


def _outcome(record: RunRecord, columns: int) -> Row:
    total = record.started.total_steps if record.started else 0
    found = [(record.state, f"at step {record.step_number:,}" + (f" of {total:,}" if total else ""))]
    if record.step:
        found += [("trained", duration(record.step.seconds)), ("tokens", short(record.step.tokens))]
    if record.started:
        found.append(("parameters", short(record.started.n_parameters)))
    return _row(found, columns)


def _best(record: RunRecord, columns: int) -> Row:
    names = {"bleu": "BLEU", "chrf": "chrF", "val_loss": "loss", "val_accuracy": "accuracy", "cer": "CER"}
    found = []
    for name, title in names.items():
        point = record.best(name)
        if point is not None:
            form = ".1f" if name in ("bleu", "chrf") else ".3f"
            found.append((f"best {title}", f"{point.value:{form}} at {point.step:,.0f}"))
    return _row(found or [("no evaluation", "")], columns)


def _what_now(record: RunRecord, keys: Keys) -> Row:
    """The next thing to do with it, in words that can be typed."""
    going = record.state in ("stopped", "failed", "lost")
    spans: list[Span] = [(" ", "")]
    if going:
        spans += [(keys.name("train.pause"), "key"), (" goes on   ", "dim")]
    if record.has_checkpoint:
        command = _TALK.get(record.started.objective if record.started else "", "translate")
        spans += [
            (keys.name("train.talk"), "key"),
            (" talks to it   ", "dim"),
            (f"tfm-tui {command} -m {record.run}", ""),
        ]
    elif not going:
        spans.append(("it saved nothing", "dim"))
    return tuple(spans)


def bar(share: float, cells: int, style: str) -> list[Span]:
    """A progress bar that moves by half cells and reads without colour: ``━━━━╸────``."""
    halves = round(min(max(share, 0.0), 1.0) * cells * 2)
    full, half = divmod(halves, 2)
    return [("━" * full + "╸" * half, style), ("─" * (cells - full - half), "faint")]


def _row(figures: Sequence[tuple[str, str]], columns: int) -> Row:
    """As many whole figures (a name and a value) as fit: half a number misleads."""
    kept: list[Span] = [(" ", "")]
    for name, value in figures:
        pair = [("   " if len(kept) > 1 else "", ""), (f"{name} ", "dim"), (value, "")]
        if width(tuple(kept + pair)) > columns:
            break
        kept += pair
    return tuple(kept)
