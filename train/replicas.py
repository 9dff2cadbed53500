"""A model as the processes of a run hold it: whole in each of them (this module), or in shards.

The loop asks a replica for the loss of a batch, for the norm of the gradient, for a model that can be
evaluated, and for what belongs into a checkpoint. Gradients that it has after a step's last batch are the
*mean* over the processes of what each one summed up.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tfm.core.model import Model
from tfm.train.ema import WeightAverage
from tfm.train.objectives import Loss
from tfm.train.parallel import Processes
from tfm.train.state import Progress, capture, restore
from tfm.train.tasks import Task

Weights = Model | Mapping[str, Tensor]


class Reading(nn.Module):
    """A pass over a batch as a module: DDP and FSDP want to see where a pass begins and ends."""

    def __init__(self, model: Model, task: Task) -> None:
        super().__init__()
        self.model, self._task = model, task

    def forward(self, *batch: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        """The arguments of :meth:`Task.loss` but the model, and the fields of a :class:`Loss`."""
        loss = self._task.loss(self.model, *batch)
        return loss.total, loss.penalty, loss.nll, loss.correct, loss.n_tokens


class Replica:
    """The whole model: the only one, or one of those that DDP keeps alike."""

    def __init__(self, model: Model, task: Task, processes: Processes) -> None:
        self.model, self.processes = model, processes
        self._reading: nn.Module = Reading(model, task)

    def join(self) -> None:
        """From now on gradients are those of all processes."""
        if self.processes.several:
            with warnings.catch_warnings():  # the option has a new name in the newest versions only
                warnings.simplefilter("ignore", FutureWarning)
                self._reading = DistributedDataParallel(self._reading, broadcast_buffers=False)

    def loss(self, indices: np.ndarray, r_drop: float, device: torch.device, dtype: torch.dtype) -> Loss:
        """The loss of a batch; of an empty one (a process too many), one without a gradient."""
        rows = indices if len(indices) else np.zeros(1, dtype=np.int64)
        loss = Loss(*self._reading(rows, r_drop, device, dtype))
        if len(indices):
            return loss
        nothing = torch.zeros_like(loss.nll)
        return Loss(loss.total * 0.0, nothing, nothing, nothing, 0)

    def before_last(self) -> contextlib.AbstractContextManager[object]:
        """Within the block gradients are only added up: a later batch will send them."""
        if isinstance(self._reading, DistributedDataParallel):
            return self._reading.no_sync()
        return contextlib.nullcontext()

    def gradient_norm(self, gradients: Sequence[Tensor]) -> Tensor:
        """The norm of all gradients as one vector."""
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.processes.several:  # rounding must not make two processes clip or refuse differently
            norm = torch.tensor(self.processes.of_first(float(norm)), device=norm.device)
        return norm

    @contextlib.contextmanager
    def inference(self, average: WeightAverage | None) -> Iterator[Model]:
        """The model as it is to be used: the average of its weights, where there is one."""
        with contextlib.nullcontext() if average is None else average.in_place():
            yield self.model.eval()

    def weights(self) -> Weights:
        """What a checkpoint of the model without anything else holds."""
        return self.model

    def capture(
        self, optimizer: torch.optim.Optimizer, average: WeightAverage | None, place: Path
    ) -> tuple[Weights, dict[str, Tensor]]:
        """What a checkpoint holds: the weights to be used, and what it takes to go on.

        ``place`` is a path beside the checkpoints that may be written to.
        """
        weights = self.model if average is None else average.weights()
        return weights, capture(self.model, optimizer, average, self.processes)

    def restore(
        self, folder: Path, optimizer: torch.optim.Optimizer, average: WeightAverage | None
    ) -> Progress:
        """Make everything what it was when a checkpoint was written. Raises CheckpointError."""
        return restore(folder, self.model, optimizer, average, self.processes)
