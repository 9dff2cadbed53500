"""What went wrong, as a kind that a program can tell and a sentence that a person can act on."""

from __future__ import annotations

import sys
from typing import Literal

from tfm.core.catalog import NoSuchCheckpoint

Kind = Literal["bad_request", "not_found", "bad_checkpoint", "out_of_memory", "unsupported", "internal"]
MAX_MESSAGE = 1000  # characters


def explain(error: BaseException) -> tuple[Kind, str]:
    """The kind and the sentence of an ``error`` event. Loads no torch to find out."""
    message = (str(error).strip() or type(error).__name__)[:MAX_MESSAGE]
    message = message.encode("utf-8", "replace").decode()  # names of files need not be UTF-8
    if isinstance(error, NoSuchCheckpoint):
        return "not_found", message
    if _is_out_of_memory(error):
        return "out_of_memory", (
            "out of memory: use fewer lanes, a shorter text, a smaller model or a lower precision "
            f"({message.splitlines()[0]})"
        )
    if _is_a(error, "tfm.core.checkpoint", "CheckpointError"):
        return "bad_checkpoint", message
    if isinstance(error, NotImplementedError):
        return "unsupported", message
    if isinstance(error, ValueError):
        return "bad_request", message
    if isinstance(error, OSError):
        return "bad_request", f"{error.strerror or message}: {error.filename}" if error.filename else message
    return "internal", f"{type(error).__name__}: {message}"


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    if _is_a(error, "torch", "OutOfMemoryError"):
        return True
    # The CPU allocator raises a plain RuntimeError.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _is_a(error: BaseException, module: str, name: str) -> bool:
    """Like isinstance, without loading the class's module, which another thread may be doing just now."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(error, kind)
