"""The pieces of the training panel that are lines of text: head, figures, samples, list of runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from difflib import SequenceMatcher

from tfm.core.engine.protocol import RunInfo
from tfm.tui.run_record import RunRecord, duration
from tfm.tui.widgets.cells import Row, Span, fit, spread, width
from tfm.tui.widgets.lines import Lines

_STATE_STYLE = {"running": "live", "starting": "live", "paused": "second", "failed": "bad", "lost": "bad"}


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
            (state, _STATE_STYLE.get(state, "")),
        ]
        left.append((f"   step {record.step_number:,} / {total:,}" if total else "", "dim"))
        right: list[Span] = []
        if record.eta is not None and state == "running":
            right += [("ETA ", "dim"), (duration(record.eta), "strong"), ("   ", "")]
        if record.step is not None:
            right.append((_rate(record.step.tokens_per_second), "dim"))
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
    """One line of numbers and one of news."""

    record: RunRecord | None = None

    def build(self, columns: int) -> Sequence[Sequence[Span]]:
        record = self.record
        if record is None:
            return []
        spans: list[Span] = [(" ", "")]
        step, held_out = record.step, record.evaluated
        if held_out:
            spans += _figure("perplexity", f"{held_out.perplexity:.2f}")
            spans += _figure("chrF", f"{held_out.chrf:.1f}") if held_out.chrf is not None else ()
        if step:
            spans += _figure("grad", f"{step.grad_norm:.2f}")
            spans += _figure("tokens", _short(step.tokens))
            spans += _figure("trained", duration(step.seconds))
        if record.started:
            spans += _figure("parameters", _short(record.started.n_parameters))
            spans += _figure("on", f"{record.started.device} {record.started.precision}")
        if record.bad_lines:
            spans += _figure("unreadable lines", str(record.bad_lines))
        style = {"error": "bad", "warning": "live"}.get(record.news_level, "dim")
        return [_whole_figures(spans, columns), ((f" {record.news}", style),)]


class Samples(Lines):
    """The fixed sentences as the model translates them; what it words anew is marked."""

    record: RunRecord | None = None
    back = 0  # how many sets of samples before the newest one is shown

    def build(self, columns: int) -> Sequence[Sequence[Span]]:
        record = self.record
        if record is None or not record.samples:
            return [(("Sample translations show here after the first evaluation.", "dim"),)]
        at = max(0, len(record.samples) - 1 - self.back)
        before = record.samples[at - 1].samples if at > 0 else ()
        was = {sample.source: sample.output for sample in before}
        rows: list[Row] = []
        for sample in record.samples[at].samples:
            output = _changed_words(was.get(sample.source), sample.output)
            if columns >= 100:
                half = columns // 2
                left = fit(((sample.source, "dim"),), half - 2)
                rows.append((*left, (" " * (half - width(left)), ""), *output))
            else:
                rows.append(((sample.source, "dim"),))
                rows.append((("  ", ""), *output))
        return rows

    @property
    def step(self) -> int | None:
        """The step of the samples that are shown."""
        if self.record is None or not self.record.samples:
            return None
        return self.record.samples[max(0, len(self.record.samples) - 1 - self.back)].step


class RunList(Lines):
    """Every run of the engine's machine, newest first, one of them chosen."""

    runs: tuple[RunInfo, ...] = ()
    chosen = 0
    message = "Looking for runs …"

    def build(self, columns: int) -> Sequence[Sequence[Span]]:
        if not self.runs:
            return [((self.message, "dim"),)]
        name = max(18, *(len(run.run) for run in self.runs)) + 2
        head: Row = ((f"  {'run':<{name}}{'state':<10}{'step':>16}  {'best':<26}", "faint"),)
        rows = [spread(head, (("started ", "faint"),), columns)]
        rows += [self._row(number, name, columns) for number in range(len(self.runs))]
        return rows

    def _row(self, number: int, name: int, columns: int) -> Row:
        run = self.runs[number]
        here = number == self.chosen
        steps = f"{run.step:,} / {run.total_steps:,}" if run.total_steps else f"{run.step:,}"
        best = "  ".join(f"{key} {value:.3g}" for key, value in _best(run.best)[: 2 if columns > 96 else 1])
        ago = _ago(time.time() - run.started) if run.started else ""
        left: Row = (
            ("▸ " if here else "  ", "live"),
            (f"{run.run:<{name}}", "strong" if here else ""),
            (f"{run.state:<10}", _STATE_STYLE.get(run.state, "dim")),
            (f"{steps:>16}  ", "dim"),
            (best, ""),
        )
        return spread(left, ((f"{ago} ", "dim"),), columns)


def bar(share: float, cells: int, style: str) -> list[Span]:
    """A progress bar that moves by half cells and reads without colour: ``━━━━╸────``."""
    halves = round(min(max(share, 0.0), 1.0) * cells * 2)
    full, half = divmod(halves, 2)
    return [("━" * full + "╸" * half, style), ("─" * (cells - full - half), "faint")]


def _changed_words(before: str | None, now: str) -> list[Span]:
    if before is None:
        return [(now, "")]
    old, new = before.split(), now.split()
    spans: list[Span] = []
    for kind, _, _, start, end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if start < end:
            spans.append((" ".join(new[start:end]) + " ", "" if kind == "equal" else "live"))
    return spans


def _whole_figures(spans: list[Span], columns: int) -> Row:
    """As many whole figures (a name and a number) as fit: half a number misleads."""
    kept: list[Span] = spans[:1]
    for index in range(1, len(spans), 2):
        pair = spans[index : index + 2]
        if width(tuple(kept + pair)) > columns + 3:
            break
        kept += pair
    return tuple(kept)


def _figure(name: str, value: str) -> list[Span]:
    return [(f"{name} ", "dim"), (f"{value}   ", "")]


def _best(best: dict[str, float]) -> list[tuple[str, float]]:
    """The two scores that say most, of those there are."""
    order: tuple[str, ...] = ("bleu", "accuracy", "loss")
    return [(name, best[name]) for name in order if name in best][:2]


def _rate(tokens_per_second: float) -> str:
    return f"{_short(tokens_per_second)} tok/s"


def _short(number: float) -> str:
    """1234567 as ``1.2M``."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= limit:
            return f"{number / (1000 if unit == 'k' else limit):.1f}{unit}"
    return f"{number:,.0f}"


def _ago(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return "just now"
