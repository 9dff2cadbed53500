"""A model in shards: each process holds a part of every parameter, gradient and moment (FSDP2).

A layer is put together where it is needed and let go of again, so a GPU holds 1/N of the state and one
whole layer (Zhao et al. 2023). A checkpoint is first written by all processes at once, each its shards,
through torch.distributed.checkpoint in safetensors. The first process then makes the ordinary checkpoint
of them: how it was trained can be seen in no checkpoint, and any number of processes can go on from it.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import safetensors
import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from tfm.core.checkpoint import CheckpointError
from tfm.core.model import Model, assemble_model
from tfm.train.ema import WeightAverage
from tfm.train.execution import layers_of
from tfm.train.parallel import Processes
from tfm.train.replicas import Replica, Weights
from tfm.train.state import (
    OPTIMIZER_FILE,
    WEIGHT,
    Progress,
    check_names,
    load_weights,
    read_progress,
    restore_randomness,
    state_tensors,
)
from tfm.train.tasks import Task
from tfm.train.tensors import is_sharded, whole


class ShardedReplica(Replica):
    """A model whose layers, and what remains of it, are sharded one by one."""

    def __init__(self, model: Model, task: Task, processes: Processes, device: torch.device) -> None:
        super().__init__(model, task, processes)
        self._device = device
        mesh = init_device_mesh(device.type, (processes.world_size,))
        for layer in layers_of(model):
            fully_shard(layer, mesh=mesh)
        fully_shard(self._reading, mesh=mesh)

    def join(self) -> None:
        """Done when it was made."""

    @contextlib.contextmanager
    def before_last(self) -> Iterator[None]:
        assert isinstance(self._reading, FSDPModule)
        self._reading.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self._reading.set_requires_gradient_sync(True)

    def gradient_norm(self, gradients: Sequence[Tensor]) -> Tensor:
        return whole(torch.nn.utils.get_total_norm(gradients))

    @contextlib.contextmanager
    def inference(self, average: WeightAverage | None) -> Iterator[Model]:
        """A whole model in the first process; the others get theirs, in shards, and leave it alone."""
        weights = self._collected(self._shards(average), self._device)
        yield assemble_model(self.model.config, weights) if self.processes.lead else self.model

    def weights(self) -> Weights:
        return self._collected(self._shards(None), torch.device("cpu"))

    def _shards(self, average: WeightAverage | None) -> dict[str, Tensor]:
        if average is not None:
            return average.tensors
        return {name: parameter.detach() for name, parameter in self.model.named_parameters()}

    def _collected(self, shards: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        """Whole tensors in the first process, one put together after the other; nothing in the others."""
        collected = {}
        for name, tensor in shards.items():
            complete = whole(tensor)
            if self.processes.lead:
                collected[name] = complete.to(device).contiguous()
        return collected

    # ----------------------------------------------------------------- checkpoints
    def capture(
        self, optimizer: torch.optim.Optimizer, average: WeightAverage | None, place: Path
    ) -> tuple[Weights, dict[str, Tensor]]:
        shards, plain = self._shards(average), state_tensors(self.model, optimizer, average, self.processes)
        names = list(shards)
        shards |= {name: plain.pop(name) for name in list(plain) if is_sharded(plain[name])}
        folder = self.processes.first(
            lambda: place.with_name(f".tmp-shards-{place.name}-{secrets.token_hex(4)}"), Path
        )
        complete: dict[str, Tensor] = {}
        try:
            with _told_plainly(f"cannot write {folder}"):
                writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
                save(shards, storage_writer=writer, process_group=self.processes.talk)
            self.processes.first(lambda: complete.update(_put_together(folder, shards)), None)
        finally:
            if self.processes.lead:
                shutil.rmtree(folder, ignore_errors=True)
        weights = {name: complete.pop(name) for name in names if complete}
        return weights, {**complete, **{name: tensor.cpu() for name, tensor in plain.items()}}

    def restore(
        self, folder: Path, optimizer: torch.optim.Optimizer, average: WeightAverage | None
    ) -> Progress:
        """As for a whole model, but each process reads only its shards."""
        progress = read_progress(folder)
        weights, moments, plain = _contents(folder)
        check_names(folder, self.model, [*weights, *(name for name, _ in moments)])
        parameters = dict(self.model.named_parameters())
        shards: dict[str, Tensor] = {}
        for name, moment in moments:
            shards[f"{name}|{moment}"] = torch.zeros_like(parameters[name].detach())
        averaged = any(moment == WEIGHT for _, moment in moments)
        if not averaged or average is not None:
            shards |= {name: torch.zeros_like(parameters[name].detach()) for name in weights}
        with _told_plainly(str(folder)):
            reader = HuggingFaceStorageReader(str(folder))
            load(shards, storage_reader=reader, process_group=self.processes.talk)
        load_weights(
            self.model, {name: shards[f"{name}|{WEIGHT}" if averaged else name] for name in parameters}
        )
        if average is not None:
            average.load({name: shards[name] for name in weights})
        optimizer.state.clear()
        for name, moment in moments:
            if moment != WEIGHT:
                optimizer.state[parameters[name]][moment] = shards[f"{name}|{moment}"]
        for key, value in plain.items():
            name, _, moment = key.rpartition("|")
            if name in parameters:
                optimizer.state[parameters[name]][moment] = value.to(self._device)
        restore_randomness(plain, self.processes)
        return progress


def _put_together(folder: Path, shards: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors out of the files of all processes."""
    complete = {name: torch.empty(shard.shape, dtype=shard.dtype) for name, shard in shards.items()}
    with warnings.catch_warnings(), _told_plainly(f"cannot read {folder}"):
        warnings.simplefilter("ignore")  # that one process reads alone is what we want
        load(complete, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    return complete


def _contents(folder: Path) -> tuple[list[str], list[tuple[str, str]], dict[str, Tensor]]:
    """The weights and the moments (parameter, moment) that a checkpoint has, and what is never sharded."""
    moments, plain = [], {}
    try:
        with safetensors.safe_open(folder / "model.safetensors", "pt", backend="pread") as file:
            weights = list(file.keys())
        with safetensors.safe_open(folder / OPTIMIZER_FILE, "pt", backend="pread") as file:
            for key in file.keys():  # noqa: SIM118  (the handle is no dict)
                name, _, moment = key.rpartition("|")
                if key.startswith("rng|") or not file.get_slice(key).get_shape():
                    plain[key] = file.get_tensor(key)
                else:
                    moments.append((name, moment))
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{folder} is damaged: {error}") from None
    return weights, moments, plain


@contextlib.contextmanager
def _told_plainly(what: str) -> Iterator[None]:
    """Failures of torch.distributed.checkpoint, each a list of tracebacks, in one sentence."""
    try:
        yield
    except CheckpointException as error:
        reason = next((str(failure) for failure, _ in error.failures.values()), str(error))
        raise CheckpointError(f"{what}: {reason}") from None
