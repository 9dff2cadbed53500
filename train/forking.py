"""Forking: a new run that goes on from a checkpoint of another one. Torch is loaded to verify it.

The new run holds the checkpoint (hard links, so it costs no room), the story up to it, and a config
that may differ; whoever resumes it trains. Without changes it does exactly what the first run did, or
would have done.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from tfm.core import run_checkpoints
from tfm.core.engine.protocol import RunCheckpoint
from tfm.core.run_checkpoints import NEWEST
from tfm.train import events
from tfm.train.event_log import EventReader
from tfm.train.events import Evaluated, Notice, RolledBack, RunStarted, Samples, Step, TrainEvent
from tfm.train.files import link_folder, write_atomically
from tfm.train.resolve import resolve_config, to_toml
from tfm.train.run_dir import RunDir

_PROGRESS_FILE = "trainer.json"  # what makes a checkpoint one that can be resumed from
_BOOKMARK = "bookmark-"


class _Step(msgspec.Struct):
    step: int


class _Record(msgspec.Struct):
    scores: dict[str, float] = {}


def checkpoints_of(run: RunDir) -> list[RunCheckpoint]:
    """Every checkpoint that the run can go back to or be forked from, by step."""
    best = _step_in(run.path / "best.json")
    found = []
    for folder in (*run.checkpoints(), *sorted(run.path.glob(f"{_BOOKMARK}*"))):
        step = _step_in(folder / _PROGRESS_FILE)
        if step is None:  # made to be used only, or removed while we looked
            continue
        named = folder.name.startswith(_BOOKMARK)
        try:
            saved = (folder / "model.safetensors").stat().st_mtime
            scores = msgspec.json.decode((folder / "training.json").read_bytes(), type=_Record).scores
        except OSError:
            continue
        except msgspec.DecodeError:
            scores = {}
        found.append(
            RunCheckpoint(
                name=folder.name.removeprefix(_BOOKMARK) if named else str(step),
                step=step,
                saved=saved,
                best=not named and step == best,
                scores=scores,
            )
        )
    return sorted(found, key=lambda checkpoint: (checkpoint.step, checkpoint.name))


def fork(run: RunDir, which: str, overrides: dict[str, str], home: Path | None = None) -> RunDir:
    """The new run, ready to be resumed; ``which`` is a step, a bookmark or ``best``, "" the newest.

    Raises:
        ValueError: there is no such checkpoint, it is damaged, or a change cannot be made.
    """
    source = run_checkpoints.find(run.path, which or NEWEST)
    step = None if source is None else _step_in(source / _PROGRESS_FILE)
    if source is None or step is None:
        names = ", ".join(checkpoint.name for checkpoint in checkpoints_of(run)) or "none"
        raise ValueError(f"run {run.id} has no checkpoint {which or 'yet'}; there are: {names}")
    for key in overrides:
        if key == "objective" or key.startswith(("data.", "model.")):
            raise ValueError(f"a fork goes on with the same data and model, so {key} cannot change")
    config = resolve_config(run.config_path, overrides)
    if config.loop.max_steps <= step:
        raise ValueError(
            f"the checkpoint is of step {step:,} and loop.max_steps is {config.loop.max_steps:,}: "
            "fork with more, such as loop.max_steps=" + str(step * 2)
        )
    from tfm.core.checkpoint import verify_checkpoint  # loads torch

    verify_checkpoint(source)
    saved = source.stat().st_mtime
    new = RunDir.create(to_toml(config), config.name, home or run.path.parent)
    try:
        link_folder(source, new.checkpoint_path(step))
        changes = "".join(f", {key} = {value}" for key, value in overrides.items())
        message = f"forked from {run.id} at step {step:,}{changes}"
        write_atomically(new.events_path, _story(run, step, message, saved))
    except OSError as error:
        shutil.rmtree(new.path, ignore_errors=True)
        raise ValueError(f"cannot fork {run.id}: {error.filename}: {error.strerror}") from None
    return new


def _story(run: RunDir, step: int, message: str, at: float) -> bytes:
    """The numbers and samples up to a step, without what was undone, numbered anew."""
    kept: list[TrainEvent] = []
    reader = EventReader(run.events_path)
    while lines := reader.poll():
        for line in lines:
            event = events.decode(line)
            match event:
                case RunStarted(resumed_from=back):
                    kept = _up_to(kept, back or 0)
                case RolledBack(step=back):
                    kept = _up_to(kept, back)
                case Step() | Evaluated() | Samples():
                    kept.append(event)
    kept = [*_up_to(kept, step), Notice(level="info", message=message, time=at)]
    return b"".join(events.encode(msgspec.structs.replace(event, seq=seq)) for seq, event in enumerate(kept))


def _up_to(told: list[TrainEvent], step: int) -> list[TrainEvent]:
    return [event for event in told if getattr(event, "step", 0) <= step]


def _step_in(file: Path) -> int | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Step).step
    except (OSError, msgspec.DecodeError):
        return None
