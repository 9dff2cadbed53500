"""What the panel knows about a training run: the events of its log, gathered. Pure data, no widgets."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from tfm.train import events

Point = tuple[float, float]  # step, value
_ETA_WINDOW = 60  # step events that the rate of progress is taken over, evaluations included


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
        self.curves: dict[str, list[Point]] = {
            name: []
            for name in ("loss", "accuracy", "learning_rate", "val_loss", "val_accuracy", "bleu", "chrf")
        }
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
            case events.Step():
                self.step = event
                self._clock.append((event.time, event.step))
                self._point("loss", event.step, event.loss)
                self._point("accuracy", event.step, event.accuracy)
                self._point("learning_rate", event.step, event.learning_rate)
            case events.Evaluated():
                self.evaluated = event
                self._point("val_loss", event.step, event.loss)
                self._point("val_accuracy", event.step, event.accuracy)
                self._point("bleu", event.step, event.bleu)
                self._point("chrf", event.step, event.chrf)
            case events.Samples():
                self.samples.append(event)
            case events.CheckpointSaved():
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
                self.say(event.message or f"{event.reason} at step {event.step:,}", level)

    def _acknowledge(self, event: events.CommandDone) -> None:
        if event.ok and event.command in ("pause", "resume"):
            self.paused = event.command == "pause"
            self._clock.clear()
        answer = "done" if event.ok else "refused"
        reason = f": {event.message}" if event.message else ""
        self.say(f"{event.command} {answer}{reason}", "info" if event.ok else "warning")

    def say(self, text: str, level: str = "info") -> None:
        """Something worth a sentence, from the run or about it."""
        self.news, self.news_level = text, level

    def lose(self, why: str) -> None:
        """Nobody trains this run any more."""
        self.lost = True
        self.say(why, "error")

    def _point(self, name: str, step: int, value: float | None) -> None:
        if value is not None:
            self.curves[name].append((float(step), float(value)))

    def _forget_after(self, step: int) -> None:
        """A run that was resumed from a checkpoint does the steps after it anew."""
        for points in self.curves.values():
            while points and points[-1][0] > step:
                points.pop()
        while self.samples and self.samples[-1].step > step:
            self.samples.pop()

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

    @property
    def best_bleu(self) -> float | None:
        return max((value for _, value in self.curves["bleu"]), default=None)


def downsample(points: Sequence[Point], count: int) -> list[Point]:
    """At most ``count`` points: the means of equal slices of the steps, so that a curve stays itself.

    The newest point is kept exactly.
    """
    if len(points) <= count or count < 2:
        return list(points)
    low, high = points[0][0], points[-1][0]
    span = (high - low) or 1.0
    sums: dict[int, tuple[float, float, int]] = {}
    for x, y in points[:-1]:
        slot = min(int((x - low) / span * (count - 1)), count - 2)
        sx, sy, n = sums.get(slot, (0.0, 0.0, 0))
        sums[slot] = (sx + x, sy + y, n + 1)
    return [(sx / n, sy / n) for sx, sy, n in sums.values()] + [points[-1]]


def duration(seconds: float) -> str:
    """``1:02:03``, or days where it is that long."""
    whole = max(0, round(seconds))
    days, rest = divmod(whole, 86_400)
    text = f"{rest // 3600}:{rest % 3600 // 60:02}:{rest % 60:02}"
    return f"{days} d {text}" if days else text
