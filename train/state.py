"""Everything a run needs to go on exactly where it was, and its place in a checkpoint folder.

The tensors (optimiser moments, random state) go into ``optimizer.safetensors``, the numbers into
``trainer.json``. There is no pickle.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from tfm.core.checkpoint import CheckpointError, read_tensors
from tfm.core.model import Model
from tfm.train.ema import WeightAverage
from tfm.train.guard import GuardState

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


def capture(
    model: Model, optimizer: torch.optim.Optimizer, average: WeightAverage | None
) -> dict[str, Tensor]:
    """Optimiser moments as ``parameter|moment`` and the random generators' states.

    Where ``model.safetensors`` will hold the average, the weights themselves are here as
    ``parameter|weight``.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if average is not None:
            tensors[f"{name}|{WEIGHT}"] = parameter.detach().cpu().clone()
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}|{key}"] = value.detach().cpu().clone()
    tensors["rng|cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng|cuda"] = torch.cuda.get_rng_state().cpu()
    return tensors


def restore(
    folder: Path, model: Model, optimizer: torch.optim.Optimizer, average: WeightAverage | None
) -> Progress:
    """Make everything what it was when the checkpoint was written.

    An average that was not asked for then begins with the weights of this checkpoint.

    Raises:
        CheckpointError: the folder cannot be resumed from, and why; nothing is changed then.
    """
    try:
        progress = msgspec.json.decode((folder / PROGRESS_FILE).read_bytes(), type=Progress)
    except FileNotFoundError:
        raise CheckpointError(f"{folder} can be used but not resumed: it has no {PROGRESS_FILE}") from None
    except (OSError, msgspec.DecodeError) as error:
        raise CheckpointError(f"{folder / PROGRESS_FILE}: {error}") from None
    weights, tensors = read_tensors(folder / "model.safetensors"), read_tensors(folder / OPTIMIZER_FILE)
    parameters = dict(model.named_parameters())
    moments = [key.rpartition("|") for key in tensors if not key.startswith("rng|")]
    for name in (*weights, *(name for name, _, _ in moments)):
        if name not in parameters:
            raise CheckpointError(f"{folder}: {name} is no parameter of this model")
    load_weights(model, {name: tensors.get(f"{name}|{WEIGHT}", weight) for name, weight in weights.items()})
    if average is not None:
        average.load(weights)
    optimizer.state.clear()
    for name, _, moment in moments:
        if moment == WEIGHT:
            continue
        parameter = parameters[name]
        optimizer.state[parameter][moment] = tensors[f"{name}|{moment}"].to(parameter.device)
    torch.set_rng_state(tensors["rng|cpu"])
    if torch.cuda.is_available() and "rng|cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng|cuda"])
    return progress


def load_weights(model: Model, weights: Mapping[str, Tensor]) -> None:
    """Copy weights by name into the model's own parameters."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
