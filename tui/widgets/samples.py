"""The fixed prompts as the model answers them at one evaluation; what it words anew is marked."""

from __future__ import annotations

from collections.abc import Sequence

from tfm.train.events import Samples as SampleSet
from tfm.tui.run_record import RunRecord
from tfm.tui.safe_text import safe_text
from tfm.tui.widgets.cells import Row, Span, width
from tfm.tui.widgets.lines import Lines
from tfm.tui.word_diff import word_diff, wrapped

_SIDE_BY_SIDE = 100  # cells from which prompt and answer share a row


class Samples(Lines):
    record: RunRecord | None = None
    back = 0  # how many sets of samples before the newest one is shown

    def build(self, columns: int) -> Sequence[Sequence[Span]]:
        record, shown = self.record, self.shown
        if record is None or shown is None:
            return [(("Samples show here after the first evaluation.", "dim"),)]
        at = record.samples.index(shown)
        before = record.samples[at - 1].samples if at > 0 else ()
        was = {sample.source: sample.output for sample in before}
        rows: list[Row] = []
        for sample in shown.samples:
            old = was.get(sample.source)
            answer = word_diff(safe_text(old) if old is not None else None, safe_text(sample.output))
            rows += _entry(((safe_text(sample.source), "dim"),), answer, columns)
        return rows

    @property
    def shown(self) -> SampleSet | None:
        if self.record is None or not self.record.samples:
            return None
        return self.record.samples[max(0, len(self.record.samples) - 1 - self.back)]

    @property
    def step(self) -> int | None:
        """The step of the samples that are shown."""
        return self.shown.step if self.shown is not None else None


def _entry(prompt: Row, answer: Row, columns: int) -> list[Row]:
    """Prompt and answer side by side where there is room, else one under the other."""
    if columns < _SIDE_BY_SIDE:
        return [*wrapped(prompt, columns), *(((("  ", ""), *row)) for row in wrapped(answer, columns - 2))]
    half = columns // 2
    left, right = wrapped(prompt, half - 2), wrapped(answer, columns - half)
    blank: Row = ()
    height = max(len(left), len(right))
    left, right = left + [blank] * (height - len(left)), right + [blank] * (height - len(right))
    return [(*a, (" " * (half - width(a)), ""), *b) for a, b in zip(left, right, strict=True)]
