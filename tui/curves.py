"""What can be drawn of runs and how it is looked at: which curves, over what, how smooth. Pure functions.

Points come from :class:`tfm.tui.run_record.RunRecord`. A :class:`View` is what a person has chosen;
it holds for every curve at once.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

import msgspec

from tfm.tui.run_record import Point, RunRecord, duration, short
from tfm.tui.settings import Axis, CurveSettings, Split

Pair = tuple[float, float]  # x, y

AXES: dict[Axis, str] = {"step": "steps", "seconds": "time", "tokens": "tokens"}
SPLITS: tuple[Split, ...] = ("both", "train", "validation")
SMOOTHINGS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
MOST_RUNS = 6  # overlaid: more lines than this nobody tells apart
_FORGOTTEN = 1e-3  # share of a value that is left where smoothing may begin
_CLOSEST = 8  # points that a zoom leaves in view at least


class CurveKind(NamedTuple):
    """One plot: a series of the training steps, one of the evaluations, or both."""

    id: str
    title: str
    trained: str  # names in RunRecord.curves; "" where there is none
    held_out: str
    form: str  # of its values
    log: bool = False  # is drawn on a logarithmic axis where one is asked for
    settle: bool = False  # the first values, which may be huge, do not set the scale


KINDS = (
    CurveKind("loss", "loss", "loss", "val_loss", ".3f", log=True, settle=True),
    CurveKind("perplexity", "perplexity", "perplexity", "val_perplexity", ".2f", log=True, settle=True),
    CurveKind("accuracy", "accuracy", "accuracy", "val_accuracy", ".3f"),
    CurveKind("bleu", "BLEU", "", "bleu", ".1f"),
    CurveKind("chrf", "chrF", "", "chrf", ".1f"),
    CurveKind("cer", "character error rate", "", "cer", ".3f", log=True),
    CurveKind("wer", "word error rate", "", "wer", ".3f", log=True),
    CurveKind("grad_norm", "gradient norm", "grad_norm", "", ".2f", log=True, settle=True),
    CurveKind("learning_rate", "learning rate", "learning_rate", "", ".2e", log=True),
    CurveKind("tokens_per_second", "tokens/s", "tokens_per_second", "", ",.0f"),
)
BY_ID = {kind.id: kind for kind in KINDS}
_ORDER = ("loss", "bleu", "accuracy", "learning_rate", "perplexity", "chrf", "grad_norm", "tokens_per_second")


class View(msgspec.Struct, frozen=True, kw_only=True):
    """How curves are looked at."""

    axis: Axis = "step"
    smoothing: float = 0.0  # weight of the past in the moving average of training curves
    log: bool = False
    split: Split = "both"
    width: float | None = None  # of the window on the axis; None: everything
    right: float | None = None  # its right edge; None: the newest point, wherever that goes

    def described(self) -> list[str]:
        """What is not as it is by default, for a person."""
        words = [f"over {AXES[self.axis]}"] if self.axis != "step" else []
        words += [f"smoothed {self.smoothing:g}"] if self.smoothing else []
        words += ["log"] if self.log else []
        words += [f"{self.split} only"] if self.split != "both" else []
        words += ["zoomed"] if self.width is not None else []
        return words


def remembered(settings: CurveSettings) -> tuple[View, tuple[str, ...]]:
    """The view as it was left the last time, and the ids of the curves that were chosen."""
    smoothing = min(max(settings.smoothing, 0.0), SMOOTHINGS[-1])
    view = View(axis=settings.axis, smoothing=smoothing, log=settings.log, split=settings.split)
    return view, tuple(name for name in settings.shown if name in BY_ID)


def to_remember(view: View, shown: tuple[str, ...]) -> CurveSettings:
    """What is worth remembering: not where in a run somebody looked."""
    return CurveSettings(
        axis=view.axis, smoothing=view.smoothing, log=view.log, split=view.split, shown=shown
    )


# --------------------------------------------------------------------------- turning the view
def turn_axis(view: View) -> View:
    """The next axis. A window on the old one means nothing on the new one."""
    axes = list(AXES)
    following = axes[(axes.index(view.axis) + 1) % len(axes)]
    return msgspec.structs.replace(view, axis=following, width=None, right=None)


def turn_split(view: View) -> View:
    return msgspec.structs.replace(view, split=SPLITS[(SPLITS.index(view.split) + 1) % len(SPLITS)])


def turn_smoothing(view: View, by: int) -> View:
    place = min(range(len(SMOOTHINGS)), key=lambda i: abs(SMOOTHINGS[i] - view.smoothing))
    return msgspec.structs.replace(view, smoothing=SMOOTHINGS[min(max(place + by, 0), len(SMOOTHINGS) - 1)])


def zoom(view: View, by: int, extent: Pair, least: float = 0.0) -> View:
    """Half the window (``by`` > 0) or twice, about its middle; about the newest point while it follows that.

    ``least`` is the narrowest that makes sense.
    """
    left, right = window(view, extent)
    wide = (right - left) * 0.5**by
    if wide >= extent[1] - extent[0]:
        return whole(view)
    if by > 0 and wide < least:
        return view
    if view.right is None:
        return msgspec.structs.replace(view, width=wide)
    return _within(msgspec.structs.replace(view, width=wide, right=(left + right) / 2 + wide / 2), extent)


def pan(view: View, by: float, extent: Pair) -> View:
    """Shift the window by a share of itself; at the right end it follows the newest point again."""
    if view.width is None:
        return view
    _, right = window(view, extent)
    return _within(msgspec.structs.replace(view, right=right + by * view.width), extent)


def turn_log(view: View) -> View:
    return msgspec.structs.replace(view, log=not view.log)


def newest(view: View) -> View:
    """The window follows the newest point."""
    return msgspec.structs.replace(view, right=None)


def whole(view: View) -> View:
    return msgspec.structs.replace(view, width=None, right=None)


def _within(view: View, extent: Pair) -> View:
    assert view.width is not None and view.right is not None
    if view.right >= extent[1]:
        return msgspec.structs.replace(view, right=None)
    return msgspec.structs.replace(view, right=max(view.right, extent[0] + view.width))


def window(view: View, extent: Pair) -> Pair:
    """What part of the axis is in view."""
    if view.width is None:
        return extent
    right = extent[1] if view.right is None else view.right
    return max(extent[0], right - view.width), right


# --------------------------------------------------------------------------- points
def extent_of(records: Sequence[RunRecord], axis: Axis) -> Pair:
    """From the first to the last point of any curve of these runs."""
    ends = [
        getattr(points[end], axis) for record in records for points in record.curves.values() if points
        for end in (0, -1)
    ]  # fmt: skip
    return (min(ends), max(ends)) if ends else (0.0, 0.0)


def least_width(records: Sequence[RunRecord], axis: Axis) -> float:
    """The narrowest window that still holds some points of the densest curve."""
    widths = [
        (getattr(points[-1], axis) - getattr(points[0], axis)) / (len(points) - 1) * _CLOSEST
        for record in records
        if len(points := record.curves["loss"]) > 1
    ]
    return min(widths, default=0.0)


def smooth(values: Sequence[float], weight: float) -> list[float]:
    """Exponential moving average, without the pull to zero at its beginning (Kingma & Ba 2015, section 3)."""
    if weight <= 0.0:
        return list(values)
    mean, seen, out = 0.0, 0.0, []
    for value in values:
        if math.isfinite(value):
            mean = weight * mean + (1.0 - weight) * value
            seen = weight * seen + (1.0 - weight)
        out.append(mean / seen if seen else value)
    return out


def pairs(points: Sequence[Point], view: View, across: Pair, smoothing: float = 0.0) -> list[Pair]:
    """The points of a window, one beyond each of its edges, smoothed: ready to be thinned out."""
    place = itemgetter(Point._fields.index(view.axis))
    first = max(0, bisect_left(points, across[0], key=place) - 1)
    last = min(len(points), bisect_right(points, across[1], key=place) + 1)
    lead = math.ceil(math.log(_FORGOTTEN) / math.log(smoothing)) if 0.0 < smoothing < 1.0 else 0
    begin = max(0, first - lead)  # what came before still weighs
    values = smooth([point.value for point in points[begin:last]], smoothing)[first - begin :]
    drawn = zip(map(place, points[first:last]), values, strict=True)
    return [(float(x), value) for x, value in drawn if math.isfinite(value)]


def downsample(points: Sequence[Pair], count: int) -> list[Pair]:
    """At most ``count`` points: the means of equal slices of the axis, so that a curve stays itself.

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


# --------------------------------------------------------------------------- which curves
def available(records: Sequence[RunRecord]) -> list[CurveKind]:
    """Those that have a point in any of the runs; loss always."""
    return [
        kind
        for kind in KINDS
        if kind.id == "loss"
        or any(record.curves[name] for record in records for name in (kind.trained, kind.held_out) if name)
    ]


def suggested(records: Sequence[RunRecord], count: int) -> list[CurveKind]:
    """The ``count`` curves that say most about these runs, in the order of KINDS."""
    there = available(records)
    order = [BY_ID[id] for id in _ORDER if BY_ID[id] in there]
    order += [kind for kind in there if kind not in order]
    return [kind for kind in KINDS if kind in order[:count]]


def axis_label(value: float, axis: Axis) -> str:
    """A place on the axis as a person reads it."""
    if axis == "seconds":
        return duration(value)
    return short(value) if axis == "tokens" else f"{value:,.0f}"
