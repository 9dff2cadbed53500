"""Loading a model for a command: the options for it, and the refusals that name the right command."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from tfm.core.config import Family
from tfm.tui.commands.models import complete_model

if TYPE_CHECKING:
    from tfm.core.checkpoint import Checkpoint

DEFAULT_TRANSLATOR = "en-de"
DEFAULT_FILLER = "captions-mlm"
DOES: dict[Family, str] = {
    "encoder-decoder": "tfm-tui translate",
    "decoder-only": "tfm-tui generate",
    "encoder-only": "tfm-tui fill",
}


class Choice(NamedTuple):
    """Which model, and where and how it computes."""

    model: str
    device: str
    precision: str


def model_options(default: str | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--model``, ``--device`` and ``--precision``; the command receives ``choice: Choice``."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def command(model: str, device: str, precision: str, **values: Any) -> Any:
            return function(choice=Choice(model, device, precision), **values)

        # An explicit default of None would count as a value, and the option as given.
        presence: dict[str, Any] = {"required": True} if default is None else {"default": default}
        options = [
            click.option("--model", "-m", metavar="MODEL", **presence,
                         show_default=True, shell_complete=complete_model, help="A name or a path."),
            click.option("--device", default="auto", show_default=True, metavar="DEVICE",
                         help="auto, cpu, cuda, cuda:1, mps."),
            click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto",
                         show_default=True, help="What to compute in."),
        ]  # fmt: skip
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def load(choice: Choice, *families: Family) -> Checkpoint:
    """The checkpoint that was chosen, if it is of one of these families (none given: of any).

    Raises:
        ValueError: no such model or device, a broken checkpoint, or one that cannot do what is asked.
    """
    from tfm.core.catalog import describe, find_checkpoint

    path = find_checkpoint(choice.model)
    info = describe(path)
    if info.family and families and info.family not in families:
        raise ValueError(f"{choice.model} is {info.family}; use {DOES[info.family]}")  # type: ignore[index]

    from tfm.core.checkpoint import load_checkpoint
    from tfm.core.engine.sessions import DTYPES, choose_precision

    device = _device(choice.device)
    precision = choose_precision(choice.precision, info.n_parameters, device)  # type: ignore[arg-type]
    return load_checkpoint(path, device, DTYPES[precision])


def precision_of(checkpoint: Checkpoint) -> str:
    """``fp32`` or ``bf16``: what a loaded checkpoint computes in."""
    from tfm.core.engine.sessions import DTYPES

    return next(name for name, dtype in DTYPES.items() if dtype == checkpoint.dtype)


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        wanted = torch.device(name)
    except RuntimeError:
        raise ValueError(f"--device {name!r} is none of auto, cpu, cuda, cuda:1, mps") from None
    there = {
        "cpu": True,
        "cuda": (wanted.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(wanted.type, False):
        raise ValueError(f"--device {name}: torch sees no such device here; `tfm-tui doctor` lists them")
    return name


def check_length(checkpoint: Checkpoint, text: str, n_tokens: int, what: str) -> None:
    """Raise ValueError where a text of so many tokens does not fit the model; ``what`` names it."""
    limit = checkpoint.config.max_positions
    if n_tokens > limit:
        raise ValueError(
            f"{what} is too long for {checkpoint.path.name}: its {len(text):,} characters are {n_tokens:,} "
            f"tokens, and the model reads at most {limit:,}; split it into sentences"
        )
