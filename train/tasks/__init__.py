"""What the loop trains: a task owns its corpora, makes batches, a loss and an evaluation.

The loop knows nothing about sentences; a task knows nothing about optimisers. One module an
objective.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Protocol

import numpy as np
import torch

from tfm.core.checkpoint import Checkpoint
from tfm.core.config import ModelConfig
from tfm.core.model import Model
from tfm.core.tokenizer import Tokenizer
from tfm.train.config import TrainConfig
from tfm.train.events import Evaluated, Preparing, Sample
from tfm.train.objectives import Loss
from tfm.train.preparation import Base, prepare
from tfm.train.tasks.causal_lm import CausalLM
from tfm.train.tasks.masked_lm import MaskedLM
from tfm.train.tasks.translation import Translation


class Task(Protocol):
    """What :class:`tfm.train.loop.Trainer` asks of a task."""

    tokenizer: Tokenizer
    model_config: ModelConfig
    notices: list[str]  # what a person should know about the data
    files: dict[str, bytes]  # more files for its checkpoints, by name
    prompts: list[str]  # the fixed prompts of the config, or the first of the validation set

    def epoch(self, batch_tokens: int, seed: int, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch as example indices, a pure function of the arguments."""

    def loss(
        self, model: Model, indices: np.ndarray, r_drop: float, device: torch.device, dtype: torch.dtype
    ) -> Loss:
        """Loss of one batch of training examples; with ``r_drop``, of two readings of it."""

    def evaluate(self, checkpoint: Checkpoint, step: int) -> Evaluated:
        """Losses and, where they apply, generation metrics on the validation set."""

    def samples(self, checkpoint: Checkpoint, prompts: Sequence[str]) -> tuple[Sample, ...]:
        """What the model makes of some prompts.

        Raises:
            ValueError: the model cannot take one of them; the sentence says why.
        """


def make_task(config: TrainConfig, base: Base | None) -> Generator[Preparing, None, tuple[Task, str]]:
    """The task that a config asks for and the name of its corpus; tells how far its preparation is.

    ``base`` is the checkpoint that the run goes on or starts from.

    Raises:
        ValueError: the data cannot be used; the sentence says why.
    """
    if config.objective == "translation":
        prepared = yield from prepare(config, Translation.corpus(config), base)
        return Translation(config, prepared), prepared.key
    if config.objective == "causal-lm":
        prepared = yield from prepare(config, CausalLM.corpus(config), base)
        return CausalLM(config, prepared), prepared.key
    prepared = yield from prepare(config, MaskedLM.corpus(config), base)
    return MaskedLM(config, prepared), prepared.key
