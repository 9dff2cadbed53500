"""Which checkpoints of a run exist: written in one commit, the best pinned, old ones let go.

Retention keeps the last N and the best, and never fewer than two. Going on from a run takes the
newest checkpoint that is whole, and says which ones were not. A bookmark is a second name (hard
links) for a checkpoint; nothing but a person removes it.

A run that went back to an earlier step will write the later ones anew. Those that are there are
renamed ``undone-step-N`` and stay until the run goes back another time.
"""

from __future__ import annotations

import platform
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from tfm.core import run_checkpoints
from tfm.core.checkpoint import (
    MANIFEST,
    CheckpointError,
    read_tensors,
    save_checkpoint,
    verify_checkpoint,
)
from tfm.core.model import Model
from tfm.core.run_checkpoints import AVERAGE, BEST, NEWEST, step_of
from tfm.train.config import TrainConfig
from tfm.train.events import Evaluated
from tfm.train.files import link_folder, write_atomically
from tfm.train.resolve import DATA_FILES
from tfm.train.run_dir import RunDir
from tfm.train.state import OPTIMIZER_FILE, PROGRESS_FILE, Progress
from tfm.train.tasks import Task

_BOOKMARK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def newest_whole(run: RunDir) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that is what was written, and a sentence for each damaged newer one.

    A damaged folder is renamed, so that the run can write that step again and nothing is lost.
    """
    problems: list[str] = []
    for folder in reversed(run.checkpoints()):
        try:
            verify_checkpoint(folder)
        except CheckpointError as error:
            aside = folder.rename(folder.with_name(f"damaged-{folder.name}-{secrets.token_hex(2)}"))
            problems.append(f"{folder.name} is damaged and was set aside as {aside.name}: {error}")
        else:
            return folder, problems
    return None, problems


class CheckpointKeeper:
    """Writes a run's checkpoints and decides which stay."""

    def __init__(self, run: RunDir, config: TrainConfig, task: Task) -> None:
        self.run, self.config, self.task = run, config, task

    def save(
        self,
        weights: Model | Mapping[str, Tensor],
        optimizer_state: Mapping[str, Tensor],
        progress: Progress,
        scores: Evaluated | None,
    ) -> Path:
        """Commit ``step-N`` (once) and let go of what is no longer kept."""
        folder = self.run.checkpoint_path(progress.step)
        if folder not in self.run.checkpoints():
            save_checkpoint(
                folder,
                weights,
                self.task.model_config,
                self.task.tokenizer,
                self._card(progress),
                self._record(progress, scores),
                extra_tensors={OPTIMIZER_FILE: optimizer_state},
                extra_files={PROGRESS_FILE: msgspec.json.encode(progress), **self.task.files},
            )
        self._let_go(progress.best_step)
        return folder

    def pin_best(self, progress: Progress, average: float | None = None) -> None:
        """Write down which checkpoint is the best; it stays until a better one is pinned.

        ``average`` is what the average at the end of the run is worth, by the same measure.
        """
        pointer = {"step": progress.best_step, "value": progress.best_value}
        if average is not None:
            pointer["average"] = average
        write_atomically(self.run.path / "best.json", msgspec.json.encode(pointer) + b"\n")

    def last(self, count: int) -> list[Path]:
        return self.run.checkpoints()[-count:]

    def bookmark(self, name: str, folder: Path) -> Path:
        """Give a checkpoint a name under which it stays. Raises ValueError as :meth:`check_bookmark`."""
        self.check_bookmark(name)
        place = self._bookmark_path(name)
        _link(folder, place)
        return place

    def check_bookmark(self, name: str) -> None:
        """Raise ValueError if the name cannot be used, or is taken."""
        if not _BOOKMARK.fullmatch(name) or name.isdecimal() or name in (NEWEST, BEST, AVERAGE):
            raise ValueError(
                f"a bookmark's name is up to 64 letters, digits, dots and dashes, and neither a number nor "
                f"{NEWEST!r}, {BEST!r} or {AVERAGE!r}; {name!r} is not"
            )
        if self._bookmark_path(name).exists():
            raise ValueError(f"there is a bookmark {name!r} already; choose another name")

    def find(self, name: str) -> Path:
        """The checkpoint that a person names: a bookmark, a step's number, or ``best``; "" is the newest.

        Raises:
            ValueError: there is none, or it is damaged; those that are there are named.
        """
        folder = run_checkpoints.find(self.run.path, name or NEWEST)
        if folder is None:
            there = [known for known in run_checkpoints.names(self.run.path) if known != AVERAGE]
            raise ValueError(f"no checkpoint {name or 'yet'}; there are: {', '.join(there) or 'none'}")
        verify_checkpoint(folder)
        return folder

    def good_point(self, back: int) -> Path | None:
        """The ``back``-th newest checkpoint that is whole, or the oldest such; None if there is none."""
        found: Path | None = None
        for folder in reversed(self.run.checkpoints()):
            try:
                verify_checkpoint(folder)
            except CheckpointError:
                continue
            found, back = folder, back - 1
            if back == 0:
                break
        return found

    def rewind(self, folder: Path | None, progress: Progress) -> None:
        """Make ``folder`` (None: the beginning) the newest checkpoint; later ones step aside.

        ``progress`` is what the folder holds; its best is forgotten where that checkpoint is gone.
        """
        step = self.run.checkpoint_path(progress.step)
        later = [
            place
            for place in self.run.checkpoints()
            if folder is None or step_of(place) > progress.step or (place == step and not _same(step, folder))
        ]
        undone_before = list(self.run.path.glob("undone-step-*"))
        for place in reversed(later):  # the newest first: what is left is a run that can be resumed
            place.rename(place.with_name(f"undone-{place.name}-{secrets.token_hex(2)}"))
        if folder is not None and not step.exists():
            _link(folder, step)
        if later:
            for place in undone_before:
                _remove(place)
        self.settle_best(progress)

    def settle_best(self, progress: Progress) -> None:
        """Forget a best that is not among the checkpoints: it was undone, damaged, or is another run's."""
        if progress.best_step is not None and not self.run.checkpoint_path(progress.best_step).exists():
            progress.best_step = progress.best_value = None
        if progress.best_step is None:
            (self.run.path / "best.json").unlink(missing_ok=True)
        else:
            self.pin_best(progress)

    def _bookmark_path(self, name: str) -> Path:
        return self.run.path / f"bookmark-{name}"

    def save_average(
        self,
        weights: Model | Mapping[str, Tensor],
        averaged: str | list[str],
        progress: Progress,
        scores: Evaluated | None,
    ) -> Path:
        """Commit ``average``, ready for inference; ``averaged`` says for the record what it is made of."""
        record = {**self._record(progress, scores), "averaged": averaged}
        return save_checkpoint(
            self.run.path / "average",
            weights,
            self.task.model_config,
            self.task.tokenizer,
            self._card(progress),
            record,
            extra_files=self.task.files,
        )

    def _let_go(self, best_step: int | None) -> None:
        pinned = None if best_step is None else self.run.checkpoint_path(best_step)
        for folder in self.run.checkpoints()[: -max(self.config.loop.keep_last, 2)]:
            if folder != pinned:
                _remove(folder)

    def _card(self, progress: Progress) -> str:
        config, data = self.config, self.config.data
        named = data.source_language and data.target_language
        what = f"{data.source_language} to {data.target_language}" if named else config.objective
        return (
            f"# {config.name}: {what}, {progress.step:,} steps\n\n"
            f"{config.objective}, trained by tfm-tui for {progress.step:,} steps "
            f"({progress.tokens:,} target tokens, {progress.seconds / 60:.0f} minutes). "
            "training.json holds the whole recipe.\n"
        )

    def _record(self, progress: Progress, scores: Evaluated | None) -> dict[str, Any]:
        data = self.config.data
        return {
            "name": self.config.name,
            "objective": self.config.objective,
            "languages": [name for name in (data.source_language, data.target_language) if name],
            "step": progress.step,
            "tokens": progress.tokens,
            "seconds": round(progress.seconds, 1),
            "validation": {} if scores is None else _numbers(scores),
            "versions": {"torch": str(torch.__version__), "python": platform.python_version()},
            "config": _portable(self.config),
        }


def _portable(config: TrainConfig) -> dict[str, Any]:
    """The config as plain data; files by name only, for a checkpoint travels and its paths do not."""
    fields: dict[str, Any] = msgspec.to_builtins(config)
    for name in DATA_FILES:
        fields["data"][name] = Path(fields["data"][name]).name
    return fields


def _same(a: Path, b: Path) -> bool:
    """Whether two names are of one checkpoint: the manifests hold the hashes of all their files."""
    return (a / MANIFEST).read_bytes() == (b / MANIFEST).read_bytes()


def _remove(folder: Path) -> None:
    doomed = folder.with_name(f".tmp-old-{folder.name}")  # a kill in between leaves no half one
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _link(folder: Path, place: Path) -> None:
    try:
        link_folder(folder, place)
    except OSError as error:
        raise CheckpointError(f"cannot write {place}: {error.strerror or error}") from None


def mean_weights(folders: Sequence[Path]) -> dict[str, Tensor]:
    """The mean of several checkpoints' weights, summed in float64 (Vaswani et al. 2017, section 6.1)."""
    mean: dict[str, Tensor] = {}
    for folder in folders:
        for name, tensor in read_tensors(folder / "model.safetensors").items():
            share = tensor.double() / len(folders)
            mean[name] = mean[name] + share if name in mean else share
    return mean


def _numbers(scores: Evaluated) -> dict[str, float]:
    names = ("loss", "perplexity", "accuracy", "bleu", "chrf", "cer", "wer")
    return {name: round(getattr(scores, name), 4) for name in names if getattr(scores, name) is not None}
