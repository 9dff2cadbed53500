"""An exponential moving average of the weights: what is evaluated and kept, if ``optim.ema`` asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from tfm.core.model import Model
from tfm.train.tensors import put


class WeightAverage:
    """After step t, e <- d e + (1 - d) w with d = min(decay, (1 + t) / (10 + t)) (Polyak and Juditsky 1992).

    The second term keeps the random weights of the beginning from weighing on it: after t steps it
    looks back over about t / 10 of them.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self._decay = decay
        self._parameters = dict(model.named_parameters())
        self._means = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}

    def update(self, step: int) -> None:
        """Take in the weights as they are after ``step`` steps."""
        share = 1.0 - min(self._decay, (1 + step) / (10 + step))
        weights = [parameter.detach() for parameter in self._parameters.values()]
        torch._foreach_lerp_(list(self._means.values()), weights, share)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The average by parameter name, where it is; in shards where the parameters are."""
        return dict(self._means)

    def weights(self) -> dict[str, Tensor]:
        """The average by parameter name, on the CPU."""
        return {name: mean.cpu().contiguous() for name, mean in self._means.items()}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        for name, mean in self._means.items():
            put(mean, weights[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the model's weights are the average; nothing is copied."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            parameter.data, self._means[name] = self._means[name], parameter.data
