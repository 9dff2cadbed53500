"""Which checkpoints of a run exist: written in one commit, the best pinned, old ones let go.

Retention keeps the last N and the best, and never fewer than two. Going on from a run takes the
newest checkpoint that is whole, and says which ones were not.
"""

from __future__ import annotations

import platform
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from tfm.core.checkpoint import CheckpointError, read_tensors, save_checkpoint, verify_checkpoint
from tfm.core.model import Model
from tfm.train.config import TrainConfig
from tfm.train.events import Evaluated
from tfm.train.files import write_atomically
from tfm.train.run_dir import RunDir
from tfm.train.state import OPTIMIZER_FILE, PROGRESS_FILE, Progress
from tfm.train.tasks import Task


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
        model: Model,
        optimizer_state: Mapping[str, Tensor],
        progress: Progress,
        scores: Evaluated | None,
    ) -> Path:
        """Commit ``step-N`` (once) and let go of what is no longer kept."""
        folder = self.run.checkpoint_path(progress.step)
        if folder not in self.run.checkpoints():
            save_checkpoint(
                folder,
                model,
                self.task.model_config,
                self.task.tokenizer,
                self._card(progress),
                self._record(progress, scores),
                extra_tensors={OPTIMIZER_FILE: optimizer_state},
                extra_files={PROGRESS_FILE: msgspec.json.encode(progress), **self.task.files},
            )
        self._let_go(progress.best_step)
        return folder

    def pin_best(self, progress: Progress) -> None:
        """Write down which checkpoint is the best; it stays until a better one is pinned."""
        pointer = {"step": progress.best_step, "value": progress.best_value}
        write_atomically(self.run.path / "best.json", msgspec.json.encode(pointer) + b"\n")

    def last(self, count: int) -> list[Path]:
        return self.run.checkpoints()[-count:]

    def save_average(
        self, model: Model, folders: Sequence[Path], progress: Progress, scores: Evaluated | None
    ) -> Path:
        """Commit ``average``, ready for inference, from a model that holds the mean already."""
        record = {**self._record(progress, scores), "averaged": [folder.name for folder in folders]}
        return save_checkpoint(
            self.run.path / "average",
            model,
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
                doomed = folder.with_name(f".tmp-old-{folder.name}")  # a kill in between leaves no half one
                folder.rename(doomed)
                shutil.rmtree(doomed, ignore_errors=True)

    def _card(self, progress: Progress) -> str:
        config = self.config
        return (
            f"# {config.name}\n\n"
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
            "config": msgspec.to_builtins(self.config),
        }


def mean_weights(folders: Sequence[Path]) -> dict[str, Tensor]:
    """The mean of several checkpoints' weights, summed in float64 (Vaswani et al. 2017, section 6.1)."""
    mean: dict[str, Tensor] = {}
    for folder in folders:
        for name, tensor in read_tensors(folder / "model.safetensors").items():
            share = tensor.double() / len(folders)
            mean[name] = mean[name] + share if name in mean else share
    return mean


def _numbers(scores: Evaluated) -> dict[str, float]:
    names = ("loss", "perplexity", "accuracy", "bleu", "chrf")
    return {name: round(getattr(scores, name), 4) for name in names if getattr(scores, name) is not None}
