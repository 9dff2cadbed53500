"""Run a function on untrusted input in a child process that may not take much memory or time.

Parsers of foreign files can panic, abort, loop for ever or ask for terabytes. In a child none of
this touches us: whatever happens there becomes a :class:`LimitedError` here.

    run_limited("tfm.core.convert.tokenizer_files:inspect", {"path": "tokenizer.json"})

The function takes one JSON-able value and returns one. A ValueError it raises is our own sentence
about the input and comes back as it is. Nothing is pickled: a reply is data even if the child was
taken over.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec

MEBI = 1 << 20
DEFAULT_MEMORY = 1024 * MEBI
DEFAULT_SECONDS = 20.0
LOOK = 0.1  # seconds between two calls of ``look``
_START = "from tfm.core.convert.limited import _serve; _serve()"

Failure = Literal["refused", "time", "memory", "crash"]


class LimitedError(ValueError):
    """What became of the child. ``failure`` is ``refused`` where the function itself said no."""

    def __init__(self, sentence: str, failure: Failure) -> None:
        super().__init__(sentence)
        self.failure = failure


class _Job(msgspec.Struct, frozen=True):
    target: str
    request: Any
    memory: int
    seconds: int


class _Reply(msgspec.Struct, frozen=True):
    value: Any = None
    failure: Failure | None = None
    sentence: str = ""


def run_limited(
    target: str,
    request: Any,
    *,
    memory: int = DEFAULT_MEMORY,
    seconds: float = DEFAULT_SECONDS,
    look: Callable[[], None] | None = None,
) -> Any:
    """Call ``module:function`` with ``request`` in a child of its own and return what it returns.

    Args:
        target: a module without heavy imports and a function at its top level.
        request: any JSON-able value.
        memory: bytes of address space beyond what the bare interpreter takes.
        seconds: CPU time; waiting ends after twice that and five seconds more, for busy machines.
        look: called now and then while the child works; what it raises ends the child.

    Raises:
        LimitedError: (a ValueError) a phrase that fits behind the name of the file it is about.
    """
    job = msgspec.json.encode(_Job(target, request, memory, max(1, math.ceil(seconds))))
    # One thread each: a thread's stack counts against the address space.
    single = dict.fromkeys(("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    process = subprocess.Popen(
        [sys.executable, "-c", _START],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **single, "PYTHONSAFEPATH": "1", "PYTHONUTF8": "1"},
    )
    try:
        raw = _wait(process, job, 2 * seconds + 5, look)
    except subprocess.TimeoutExpired:
        raise LimitedError(
            f"takes longer than {seconds:g} s to read; it is damaged or hostile", "time"
        ) from None
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
    return _result(raw, process.returncode, memory, seconds)


def _wait(
    process: subprocess.Popen[bytes], job: bytes, seconds: float, look: Callable[[], None] | None
) -> bytes:
    """The child's output. Raises TimeoutExpired, or what ``look`` raises."""
    end = time.monotonic() + seconds
    given: bytes | None = job  # said once; after a timeout communicate goes on where it was
    while True:
        left = max(end - time.monotonic(), 0.0)
        try:
            raw, _ = process.communicate(given, timeout=left if look is None else min(left, LOOK))
        except subprocess.TimeoutExpired:
            if look is None or left == 0.0:
                raise
            given = None
            look()
        else:
            return raw


def _result(raw: bytes, status: int, memory: int, seconds: float) -> Any:
    if status in (-signal.SIGXCPU, -signal.SIGKILL):
        raise LimitedError(f"takes longer than {seconds:g} s to read; it is damaged or hostile", "time")
    try:
        reply = msgspec.json.decode(raw, type=_Reply)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise LimitedError("makes its parser crash; it is damaged or hostile", "crash") from None
    if reply.failure == "memory":
        raise LimitedError(
            f"needs more than {memory // MEBI:,} MiB to read; it is damaged or hostile", "memory"
        )
    if reply.failure is not None:
        raise LimitedError(reply.sentence, reply.failure)
    return reply.value


def _serve() -> None:
    """The child's side: limit itself, read one job from stdin, write one reply to the real stdout."""
    out = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no reply
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=_Job)
    _limit(job.memory, job.seconds)
    try:
        module, function = job.target.split(":")
        reply = _Reply(value=getattr(importlib.import_module(module), function)(job.request))
        encoded = msgspec.json.encode(reply)
    except MemoryError:
        encoded = msgspec.json.encode(_Reply(failure="memory"))
    except ValueError as error:
        encoded = msgspec.json.encode(_Reply(failure="refused", sentence=str(error)))
    except BaseException as error:  # a panic of a Rust library is no Exception
        sentence = f"makes its parser fail ({type(error).__name__}); it is damaged or hostile"
        encoded = msgspec.json.encode(_Reply(failure="crash", sentence=sentence))
    with os.fdopen(out, "wb") as stream:
        stream.write(encoded)
    sys.stderr.flush()
    os._exit(0)  # no destructors of a library that may be broken by now


def _limit(memory: int, seconds: int) -> None:
    _set_limit(resource.RLIMIT_CORE, 0)
    _set_limit(resource.RLIMIT_CPU, seconds)
    _set_limit(resource.RLIMIT_AS, _address_space() + memory)


def _set_limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS knows RLIMIT_AS and refuses to set it
        resource.setrlimit(which, (value, value))


def _address_space() -> int:
    """Bytes mapped by now; zero where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0
