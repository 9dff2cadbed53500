"""Everything a run needs to go on exactly where it was, and its place in a checkpoint folder.

The tensors (optimiser moments, random state) go into ``optimizer.safetensors``, the numbers into
``trainer.json``. There is no pickle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from tfm.core.checkpoint import CheckpointError, read_tensors
from tfm.core.model import Model
from tfm.train.ema import WeightAverage
from tfm.train.guard import GuardState
from tfm.train.parallel import ALONE, Processes
from tfm.train.tensors import put

OPTIMIZER_FILE = "optimizer.safetensors"
PROGRESS_FILE = "trainer.json"
WEIGHT = "weight"  # in the place of a moment's name


class Window(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Sums over the steps since the last Step event."""

    loss: float = 0.0
    nll: float = 0.0
    correct: float = 0.0
    tokens: int = 0
    grad_norm: float = 0.0
    steps: int = 0
    seconds: float = 0.0


class Progress(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Where a run stands. ``batch`` counts the batches of ``epoch`` that are done."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_value: float | None = None
    best_step: int | None = None
    evaluations_since_best: int = 0
    learning_rate_override: float | None = None
    override_until: int = 0
    corpus: str = ""  # the name of the corpus, tokenised, that it is trained on
    laid_out_for: int = 1  # processes: so many times loop.accumulate batches make a step
    world_size: int = 1  # processes that wrote this
    prompts: tuple[str, ...] = ()  # fixed prompts given by a command; none: those of the config
    window: Window = msgspec.field(default_factory=Window)
    guard: GuardState = msgspec.field(default_factory=GuardState)


def make_optimizer(
    model: Model, betas: tuple[float, float], eps: float, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019); decay acts on matrices, not on biases and norms."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=eps, fused=True)


def state_tensors(
    model: Model, optimizer: torch.optim.Optimizer, average: WeightAverage | None, processes: Processes
) -> dict[str, Tensor]:
    """Optimiser moments as ``parameter|moment`` and the random generators' states.

    Where ``model.safetensors`` will hold the average, the weights themselves are here as
    ``parameter|weight``. The generators of process 2 are ``rng|cpu|2`` and ``rng|cuda|2``.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if average is not None:
            tensors[f"{name}|{WEIGHT}"] = parameter.detach()
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}|{key}"] = value.detach()
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state().cpu()
    for kind, state in states.items():
        for rank, each in enumerate(processes.each(state)):
            tensors[_rng_key(kind, rank)] = each
    return tensors


def capture(
    model: Model,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None,
    processes: Processes = ALONE,
) -> dict[str, Tensor]:
    """A copy of :func:`state_tensors` on the CPU."""
    tensors = state_tensors(model, optimizer, average, processes)
    return {name: tensor.cpu().clone() for name, tensor in tensors.items()}


def read_progress(folder: Path) -> Progress:
    """Where a run stood. Raises CheckpointError where the folder cannot be resumed from."""
    try:
        return msgspec.json.decode((folder / PROGRESS_FILE).read_bytes(), type=Progress)
    except FileNotFoundError:
        raise CheckpointError(f"{folder} can be used but not resumed: it has no {PROGRESS_FILE}") from None
    except (OSError, msgspec.DecodeError) as error:
        raise CheckpointError(f"{folder / PROGRESS_FILE}: {error}") from None


def restore(
    folder: Path,
    model: Model,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None,
    processes: Processes = ALONE,
) -> Progress:
    """Make everything what it was when the checkpoint was written.

    An average that was not asked for then begins with the weights of this checkpoint.

    Raises:
        CheckpointError: the folder cannot be resumed from, and why; nothing is changed then.
    """
    progress = read_progress(folder)
    weights, tensors = read_tensors(folder / "model.safetensors"), read_tensors(folder / OPTIMIZER_FILE)
    parameters = dict(model.named_parameters())
    moments = [key.rpartition("|") for key in tensors if not key.startswith("rng|")]
    check_names(folder, model, (*weights, *(name for name, _, _ in moments)))
    load_weights(model, {name: tensors.get(f"{name}|{WEIGHT}", weight) for name, weight in weights.items()})
    if average is not None:
        average.load(weights)
    optimizer.state.clear()
    for name, _, moment in moments:
        if moment == WEIGHT:
            continue
        parameter = parameters[name]
        optimizer.state[parameter][moment] = tensors[f"{name}|{moment}"].to(parameter.device)
    restore_randomness(tensors, processes)
    return progress


def check_names(folder: Path, model: Model, names: Iterable[str]) -> None:
    """Raise CheckpointError where a checkpoint has tensors that the model has not."""
    parameters = dict(model.named_parameters())
    for name in names:
        if name not in parameters:
            raise CheckpointError(f"{folder}: {name} is no parameter of this model")


def restore_randomness(tensors: Mapping[str, Tensor], processes: Processes) -> None:
    """Set this process's generators to what a checkpoint has for it, if it has."""
    cpu, cuda = (_rng_key(kind, processes.rank) for kind in ("cpu", "cuda"))
    if cpu in tensors:
        torch.set_rng_state(tensors[cpu])
    if torch.cuda.is_available() and cuda in tensors:
        torch.cuda.set_rng_state(tensors[cuda])


def _rng_key(kind: str, rank: int) -> str:
    return f"rng|{kind}|{rank}" if rank else f"rng|{kind}"


def seed_of(seed: int, rank: int, step: int) -> int:
    """A seed for one of several processes at a step, unlike those of all others."""
    digest = hashlib.sha256(f"{seed} {rank} {step}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def load_weights(model: Model, weights: Mapping[str, Tensor]) -> None:
    """Copy weights by name into the model's own parameters."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            put(parameter, weights[name])
