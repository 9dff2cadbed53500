"""What the panel knows about a training run: the events of its log, gathered. Pure data, no widgets."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from tfm.train import events

_ETA_WINDOW = 60  # step events that the rate of progress is taken over, evaluations included
TRAINED = ("loss", "perplexity", "accuracy", "grad_norm", "learning_rate", "tokens_per_second")
HELD_OUT = ("val_loss", "val_perplexity", "val_accuracy", "bleu", "chrf", "cer", "wer")
LOWER_IS_BETTER = ("val_loss", "val_perplexity", "cer", "wer")
_HUGE = 700.0  # nats; beyond it a perplexity is no float


class Point(NamedTuple):
    """One value of a curve, and how far the run was: every axis that it can be drawn over."""

    step: float
    seconds: float  # of training, over all resumes
    tokens: float  # target tokens
    value: float


class RunRecord:
    """The story of one run so far. Feed it log lines in any number of batches; repeats do no harm."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.seq = -1  # of the newest event, to follow on from after a lost engine
        self.started: events.RunStarted | None = None
        self.ended: events.RunEnded | None = None
        self.step: events.Step | None = None
        self.evaluated: events.Evaluated | None = None
        self.paused = False
        self.lost = False  # nobody trains it, and it never said that it ended
        self.news = ""  # the newest thing worth a sentence: a checkpoint, a notice, an answer
        self.news_level = "info"
        self.bad_lines = 0
        self.samples: list[events.Samples] = []
        self.saved: list[events.CheckpointSaved] = []
        self.curves: dict[str, list[Point]] = {name: [] for name in (*TRAINED, *HELD_OUT)}
        self._clock: deque[tuple[float, int]] = deque(maxlen=_ETA_WINDOW)  # time, step

    def take(self, lines: Sequence[str], bad_lines: int = 0) -> None:
        """Take in raw lines; one that is no event is counted and left out."""
        self.bad_lines = max(self.bad_lines, bad_lines)
        for line in lines:
            try:
                event = events.decode(line)
            except msgspec.DecodeError:
                self.bad_lines += 1
                continue
            if event.seq > self.seq or event.seq < 0:
                self.seq = max(self.seq, event.seq)
                self._apply(event)

    def _apply(self, event: events.AnyTrainEvent) -> None:
        match event:
            case events.Preparing():
                share = 100 * event.done // max(event.total, 1)
                self.say(f"preparing the corpus: {event.stage} {share} %")
            case events.RunStarted():
                self.started, self.ended, self.paused, self.lost = event, None, False, False
                self._clock.clear()
                self._forget_after(event.resumed_from or 0)
                self.say("training" if event.resumed_from is None else f"from step {event.resumed_from:,} on")
            case events.Step():
                self._step(event)
            case events.Evaluated():
                self._evaluation(event)
            case events.Samples():
                self.samples.append(event)
            case events.CheckpointSaved():
                self.saved.append(event)
                self.say(f"saved {event.path} ({event.reason})")
            case events.CommandDone():
                self._acknowledge(event)
            case events.RolledBack():
                self._forget_after(event.step)
                self._clock.clear()
                if self.step is not None and self.step.step > event.step:
                    self.step = msgspec.structs.replace(self.step, step=event.step)
                back = f"went back from step {event.from_step:,} to {event.step:,}"
                self.say(f"{back}: {event.message}" if event.message else back, "warning")
            case events.Notice():
                self.say(event.message, event.level)
            case events.RunEnded():
                self.ended, self.paused = event, False
                level = "error" if event.reason == "failed" else "info"
                why = f": {event.message}" if event.message else f" at step {event.step:,}"
                self.say(event.reason + why, level)

    def _step(self, event: events.Step) -> None:
        self.step = event
        self._clock.append((event.time, event.step))
        for name in TRAINED:
            value = _perplexity(event.nll) if name == "perplexity" else getattr(event, name)
            self.curves[name].append(Point(event.step, event.seconds, event.tokens, float(value)))

    def _evaluation(self, event: events.Evaluated) -> None:
        """Its step lies at the newest step event or a little after it, and so do time and tokens."""
        self.evaluated = event
        last = self.step
        seconds, tokens = (last.seconds, float(last.tokens)) if last is not None else (0.0, 0.0)
        if last is not None and last.step and event.step > last.step:
            seconds *= event.step / last.step
            tokens *= event.step / last.step
        for name in HELD_OUT:
            value = getattr(event, name.removeprefix("val_"))
            if value is not None:
                self.curves[name].append(Point(event.step, seconds, tokens, float(value)))

    def _acknowledge(self, event: events.CommandDone) -> None:
        if event.ok and event.command in ("pause", "resume"):
            self.paused = event.command == "pause"
            self._clock.clear()
        answer = "done" if event.ok else "refused"
        reason = f": {event.message}" if event.message else ""
        name = event.command.replace("_", " ")
        self.say(f"{name} {answer}{reason}", "info" if event.ok else "warning")

    def say(self, text: str, level: str = "info") -> None:
        """Something worth a sentence, from the run or about it."""
        self.news, self.news_level = text, level

    def lose(self, why: str) -> None:
        """Nobody trains this run any more."""
        self.lost = True
        self.say(why, "error")

    def _forget_after(self, step: int) -> None:
        """A run that was resumed from a checkpoint does the steps after it anew."""
        for points in self.curves.values():
            while points and points[-1].step > step:
                points.pop()
        for told in (self.samples, self.saved):
            while told and told[-1].step > step:
                told.pop()

    # ------------------------------------------------------------------ figures
    @property
    def state(self) -> str:
        """One word."""
        if self.ended is not None:
            return self.ended.reason
        if self.lost:
            return "lost"
        if self.started is None:
            return "starting"
        return "paused" if self.paused else "running"

    @property
    def going_on(self) -> bool:
        """Whether there is somebody to steer."""
        return self.ended is None and not self.lost

    @property
    def has_checkpoint(self) -> bool:
        """Saved by it, or begun with."""
        return bool(self.saved) or (self.started is not None and self.started.resumed_from is not None)

    @property
    def step_number(self) -> int:
        if self.ended is not None:
            return max(self.ended.step, self.step.step if self.step else 0)
        return self.step.step if self.step else 0

    @property
    def progress(self) -> float:
        """Share of the whole run, 0 to 1."""
        total = self.started.total_steps if self.started else 0
        return min(1.0, self.step_number / total) if total else 0.0

    @property
    def epoch_progress(self) -> float:
        return self.step.epoch % 1.0 if self.step else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds to the end of the whole run at the pace of late, evaluations and all; None: unknown."""
        if self.started is None or self.ended is not None or len(self._clock) < 2:
            return None
        (first_time, first), (last_time, last) = self._clock[0], self._clock[-1]
        if last <= first or last_time <= first_time:
            return None
        return (self.started.total_steps - last) * (last_time - first_time) / (last - first)

    def best(self, name: str) -> Point | None:
        """The point at which a held-out curve was best."""
        pick = min if name in LOWER_IS_BETTER else max
        return pick(self.curves[name], key=lambda point: point.value, default=None)

    @property
    def prompts(self) -> list[str]:
        """The fixed sample prompts, as far as they are known."""
        return [sample.source for sample in self.samples[-1].samples] if self.samples else []


def _perplexity(nll: float) -> float:
    return math.exp(nll) if nll < _HUGE else math.inf


def duration(seconds: float) -> str:
    """``1:02:03``, or days where it is that long."""
    whole = max(0, round(seconds))
    days, rest = divmod(whole, 86_400)
    text = f"{rest // 3600}:{rest % 3600 // 60:02}:{rest % 60:02}"
    return f"{days} d {text}" if days else text


def short(number: float) -> str:
    """1234567 as ``1.2M``."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= limit:
            return f"{number / (1000 if unit == 'k' else limit):.1f}{unit}"
    return f"{number:,.0f}"
