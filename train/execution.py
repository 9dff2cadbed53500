"""On what a model runs: device and precision."""

from __future__ import annotations

import contextlib

import torch


def find_device(name: str) -> torch.device:
    """The device that ``loop.device`` names; ``auto`` is a GPU where there is one.

    Raises:
        ValueError: this machine has no such device.
    """
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


def device_name(device: torch.device) -> str:
    """For a person."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def find_precision(name: str, device: torch.device) -> torch.dtype:
    """The type of matrix products; ``auto`` is bfloat16 where the hardware multiplies in it, else float32."""
    if name == "auto":
        fast = device.type == "cuda" or torch.cpu._is_amx_tile_supported()
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
