"""A model that was trained here, named by its run: ``RUN``, ``RUN@best``, ``RUN@500``. No torch.

    RUN            the better of its average and its best; before it has either, its newest
    RUN@average    the mean of the last checkpoints, made when a run ends
    RUN@best       the checkpoint with the best evaluation
    RUN@newest     the newest one
    RUN@500        the one of a step
    RUN@NAME       a bookmark

Of a run's folder this module knows the names of its checkpoints, and no more.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

NEWEST, BEST, AVERAGE = "newest", "best", "average"  # no bookmark can have these names
_STEP = re.compile(r"step-(\d+)")
_BOOKMARK = "bookmark-"


def is_run(folder: Path) -> bool:
    return (folder / "config.toml").is_file()


def checkpoints(run: Path) -> list[Path]:
    """The committed checkpoints (those with a manifest) that can be resumed from, by step."""
    found = []
    for folder in run.iterdir():
        match = _STEP.fullmatch(folder.name)
        if match and (folder / "MANIFEST.json").is_file():
            found.append((int(match[1]), folder))
    return [folder for _, folder in sorted(found)]


def step_of(folder: Path) -> int:
    """The step of a folder that :func:`checkpoints` gave."""
    return int(folder.name.removeprefix("step-"))


def find(run: Path, which: str = "") -> Path | None:
    """What stands after the ``@``; None where the run has no such checkpoint."""
    saved = checkpoints(run)
    if which == "":
        return _average(run, saved) or find(run, BEST) or (saved[-1] if saved else None)
    if which == NEWEST:
        return saved[-1] if saved else None
    if which == AVERAGE:
        return _usable(run / AVERAGE)
    if which == BEST:
        step = _number(run / "best.json", "step")
        return None if step is None else next((f for f in saved if step_of(f) == step), None)
    if which.isdecimal():
        return next((folder for folder in saved if step_of(folder) == int(which)), None)
    return None if "/" in which or which.startswith(".") else _usable(run / f"{_BOOKMARK}{which}")


def names(run: Path) -> list[str]:
    """Everything that can stand after the ``@``: steps, bookmarks, and what else the run has."""
    steps = [str(step_of(folder)) for folder in checkpoints(run)]
    bookmarks = sorted(place.name.removeprefix(_BOOKMARK) for place in run.glob(f"{_BOOKMARK}*"))
    return [*steps, *bookmarks, *(name for name in (BEST, AVERAGE) if find(run, name) is not None)]


def name_of(folder: Path) -> str:
    """``RUN@500`` for a checkpoint folder of a run, or "" where the folder is no such thing."""
    if not is_run(folder.parent):
        return ""
    match = _STEP.fullmatch(folder.name)
    which = str(int(match[1])) if match else folder.name.removeprefix(_BOOKMARK)
    return f"{folder.parent.name}@{which}" if find(folder.parent, which) == folder else ""


def _average(run: Path, saved: list[Path]) -> Path | None:
    """The run's average, unless the best checkpoint is better or the run was resumed and is beyond it."""
    folder, step = _usable(run / AVERAGE), _number(run / AVERAGE / "training.json", "step")
    if folder is None or (saved and (step is None or step < step_of(saved[-1]))):
        return None
    best, average = (_number(run / "best.json", field) for field in ("value", "average"))
    return None if best is not None and average is not None and average < best else folder


def _usable(folder: Path) -> Path | None:
    return folder if (folder / "config.json").is_file() else None


def _number(file: Path, field: str) -> float | None:
    """A number of a small JSON file; None where it does not hold one."""
    try:
        value = msgspec.json.decode(file.read_bytes(), type=dict[str, Any]).get(field)
    except (OSError, msgspec.DecodeError):
        return None
    return value if isinstance(value, int | float) else None
