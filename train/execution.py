"""How a model is run: device, precision, compiled layers, activations computed twice."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tfm.core.model import DecoderOnly, EncoderOnly, Model


def find_device(name: str, local_rank: int | None = None) -> torch.device:
    """The device that ``loop.device`` names; ``auto`` is a GPU where there is one.

    ``local_rank`` is that of one of several processes: on GPUs, each takes the one of its number.

    Raises:
        ValueError: this machine has no such device.
    """
    if local_rank is not None:
        return _own_device(name, local_rank)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        raise ValueError(
            f'loop.device = {name!r} is no device of this machine; use "auto" or "cpu"'
        ) from None
    return device


def _own_device(name: str, local_rank: int) -> torch.device:
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if name not in ("auto", "cuda"):
        raise ValueError(f'loop.device = {name!r}, but several processes need "auto", "cuda" or "cpu"')
    if local_rank >= torch.cuda.device_count():
        raise ValueError(
            f"{torch.cuda.device_count()} GPUs are too few: each process needs its own; "
            'start fewer, or set loop.device = "cpu"'
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def device_name(device: torch.device) -> str:
    """For a person."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def find_precision(name: str, device: torch.device) -> torch.dtype:
    """The type of matrix products; ``auto`` is bfloat16 where the hardware multiplies in it, else float32.

    Of CPUs those with AMX do, and those with the dot products of AVX512-BF16 (AMD from Zen 4 on): with
    these a step took 0.7 of its time in float32 (docs/benchmarks.md).
    """
    if name == "auto":
        fast = (
            device.type == "cuda"
            or torch.cpu._is_amx_tile_supported()
            or torch.cpu._is_avx512_bf16_supported()
        )
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if name == "bf16" else torch.float32


def autocast(device: torch.device, precision: torch.dtype) -> contextlib.AbstractContextManager[object]:
    """Matrix products in ``precision`` within the block."""
    if precision is torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, precision)


def untouched_randomness(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Whatever is drawn within the block, the generators stand afterwards where they stood before."""
    devices = [device] if device.type == "cuda" else []
    return torch.random.fork_rng(devices=devices)


# --------------------------------------------------------------------------- layers
def layers_of(model: Model) -> list[nn.Module]:
    """Every encoder and decoder layer: nearly all the work and nearly all the memory."""
    encoder = [] if isinstance(model, DecoderOnly) else list(model.encoder_layers)
    decoder = [] if isinstance(model, EncoderOnly) else list(model.decoder_layers)
    return encoder + decoder


def recompute_activations(model: Model) -> None:
    """Keep only what enters each layer and compute the rest again for the gradient (Chen et al. 2016).

    Costs a third more time and changes no result: dropout draws the same masks again.
    """
    for layer in layers_of(model):
        _in_training(layer, partial(checkpoint, layer.forward, use_reentrant=False))


def compile_layers(model: Model, trial: Callable[[], None]) -> str:
    """Have torch compile each layer for training; ``trial`` is a forward and backward pass to try it on.

    Returns why it does not work on this machine, in which case the model is as it was; "" if it does.
    """
    layers = layers_of(model)
    for layer in layers:
        _in_training(layer, torch.compile(layer.forward, dynamic=True))
    try:
        trial()
    except Exception as error:  # whatever the compiler raises, it is no reason not to train
        for layer in layers:
            del layer.forward
        return (str(error).splitlines() or [type(error).__name__])[0]
    return ""


def _in_training(layer: nn.Module, forward: Callable[..., Any]) -> None:
    """Run a layer by ``forward`` where gradients are wanted and as it is everywhere else."""
    plain = layer.forward

    def choose(*inputs: Any) -> Any:
        return forward(*inputs) if layer.training and torch.is_grad_enabled() else plain(*inputs)

    layer.forward = choose
