"""A run's events as lines that a person reads: the same in the commands and in the plain dialogue."""

from __future__ import annotations

from collections import deque

from tfm.train.events import (
    AnyTrainEvent,
    CheckpointSaved,
    CommandDone,
    Evaluated,
    Notice,
    Preparing,
    RolledBack,
    RunEnded,
    RunStarted,
    Samples,
    Step,
)
from tfm.tui.commands.output import human_count, human_seconds


class Printer:
    """Turns events into lines a person reads; remembers the run's length for percentages and the ETA."""

    def __init__(self) -> None:
        self._total = 0
        self._rate: deque[tuple[int, float]] = deque(maxlen=20)  # (step, seconds of training)

    def lines(self, event: AnyTrainEvent) -> list[str]:
        match event:
            case Preparing():
                share = 100 * event.done // max(event.total, 1)
                return [f"  preparing the corpus: {event.stage} {share} %"]
            case RunStarted():
                self._total = event.total_steps
                self._rate.clear()
                many = f" in {event.processes} processes" if event.processes > 1 else ""
                again = f", resumed at step {event.resumed_from:,}" if event.resumed_from is not None else ""
                return [
                    f"run {event.run}: {event.objective}, {human_count(event.n_parameters)} parameters, "
                    f"{event.total_steps:,} steps, {event.device} {event.precision}{many}{again}"
                ]
            case Step():
                return [self._step(event)]
            case Evaluated():
                bleu = "" if event.bleu is None else f"  BLEU {event.bleu:.1f}"
                chrf = "" if event.chrf is None else f"  chrF {event.chrf:.1f}"
                rates = "" if event.cer is None or event.wer is None else _rates(event.cer, event.wer)
                return [
                    f"  valid at {event.step:,}: loss {event.loss:.3f}  perplexity {event.perplexity:.2f}  "
                    f"accuracy {event.accuracy:.3f}{bleu}{chrf}{rates}{'  (best)' if event.best else ''}"
                ]
            case Samples():
                return [f"    {sample.source}  ->  {sample.output}" for sample in event.samples]
            case CheckpointSaved():
                return [f"  saved {event.path} ({event.reason})"]
            case CommandDone():
                done = "done" if event.ok else "refused"
                return [f"  {event.command}: {event.message or done}"]
            case RolledBack():
                self._rate.clear()
                return [f"  went back from step {event.from_step:,} to {event.step:,}: {event.message}"]
            case Notice():
                return [f"  {event.level}: {event.message}"]
            case RunEnded():
                return [
                    f"{event.reason} at step {event.step:,}{': ' if event.message else ''}{event.message}"
                ]

    def _step(self, event: Step) -> str:
        total = max(self._total, event.step)
        self._rate.append((event.step, event.seconds))
        eta = ""
        (first, then), (last, now) = self._rate[0], self._rate[-1]
        if last > first and now > then:
            eta = f"  ETA {human_seconds((total - last) * (now - then) / (last - first))}"
        return (
            f"step {event.step:,}/{total:,} {100 * event.step // max(total, 1)} %  epoch {event.epoch:.2f}  "
            f"loss {event.loss:.3f}  accuracy {event.accuracy:.3f}  grad {event.grad_norm:.2f}  "
            f"lr {event.learning_rate:.2e}  {event.tokens_per_second:,.0f} tok/s{eta}"
        )


def _rates(characters: float, words: float) -> str:
    return f"  CER {characters:.2f}  WER {words:.2f}"
