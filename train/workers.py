"""Several trainers on this machine as one run: started together, watched, and ended together. No torch.

The process that starts them owns the run. It trains nothing: it sees to it that none of them outlives
the others, and where the one that writes the log is the one that dies, it writes the last line.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tfm.train import events
from tfm.train.event_log import EventLog, EventReader
from tfm.train.events import RolledBack, RunEnded, Step
from tfm.train.run_dir import RunDir

RENDEZVOUS = "TFM_RENDEZVOUS"  # in the environment: where the processes meet, if not where torchrun says
PARENT = "TFM_PARENT"  # in the environment: the process that this one shall not outlive
GRACE = 15.0  # seconds that the others have to end by themselves once one of them is gone
_POLL = 0.05
_PR_SET_PDEATHSIG = 1


def under_torchrun() -> bool:
    """Whether this process was started as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def is_supervised() -> bool:
    """Whether this process is one of those that :func:`run_workers` started."""
    return PARENT in os.environ


def run_workers(run: RunDir, count: int) -> int:
    """Train a run, whose lock the caller holds, with ``count`` processes; the exit status of the run.

    A KeyboardInterrupt, whatever the processes are doing, ends them at once.
    """
    seen = EventReader(run.events_path)
    while seen.poll():
        pass  # what was there before
    with tempfile.TemporaryDirectory(prefix="tfm-") as meeting:
        workers = [_start(run, rank, count, Path(meeting)) for rank in range(count)]
        try:
            failure = _watch(workers)
        except BaseException as error:
            _end(workers)
            _last_words(run, seen, "stopped" if isinstance(error, KeyboardInterrupt) else "failed",
                        "interrupted at once: what came after the newest checkpoint is lost")  # fmt: skip
            raise
    if failure is None:
        return 0
    rank, status = failure
    _last_words(run, seen, "failed", f"process {rank} of {count} {_became_of(status)}")
    return max(workers[0].returncode, 0) or 1


def _start(run: RunDir, rank: int, count: int, meeting: Path) -> subprocess.Popen[bytes]:
    n_threads = max(len(os.sched_getaffinity(0)) // count, 1)
    ours = {
        "RANK": str(rank), "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
        RENDEZVOUS: (meeting / "store").as_uri(), PARENT: str(os.getpid()),
    }  # fmt: skip
    # All of them are on this machine: nothing listens to any other.
    defaults = {"OMP_NUM_THREADS": str(n_threads), "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    return subprocess.Popen(
        [sys.executable, "-m", "tfm.train.launch", str(run.path), "--worker"],
        stdin=subprocess.DEVNULL,
        env={**defaults, **os.environ, **ours, "PYTHONSAFEPATH": "1", "PYTHONUTF8": "1"},
    )


def _watch(workers: Sequence[subprocess.Popen[bytes]]) -> tuple[int, int] | None:
    """Wait for all; the rank and status of the first that failed, None where all went well."""
    failure: tuple[int, int] | None = None
    deadline = 0.0
    while any(worker.poll() is None for worker in workers):
        if failure is None:
            failure = _first_failure(workers)
            deadline = time.monotonic() + GRACE
        elif time.monotonic() > deadline:
            _end(workers)
        time.sleep(_POLL)
    return failure or _first_failure(workers)


def _first_failure(workers: Sequence[subprocess.Popen[bytes]]) -> tuple[int, int] | None:
    """Of those that failed: one that was killed before one that only missed it."""
    failed = [(rank, worker.returncode) for rank, worker in enumerate(workers) if worker.returncode]
    return min(failed, key=lambda found: (found[1] > 0, found[0]), default=None)


def _end(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.wait()


def _became_of(status: int) -> str:
    if status < 0:
        return f"was killed ({signal.Signals(-status).name}); the checkpoints are as they were"
    return f"ended with status {status}; log.txt says why"


def _last_words(run: RunDir, seen: EventReader, reason: events.EndReason, message: str) -> None:
    """Tell the end of a run whose processes are gone, unless one of them has."""
    step = max((int(folder.name.removeprefix("step-")) for folder in run.checkpoints()), default=0)
    while lines := seen.poll():
        for line in lines:
            event = events.decode(line)
            if isinstance(event, RunEnded):
                return
            step = event.step if isinstance(event, Step | RolledBack) else step
    log = EventLog(run)
    try:
        log.append(RunEnded(reason=reason, step=step, message=message))
    finally:
        log.close()


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it dies, however that happens."""
    parent = os.environ.get(PARENT)
    if parent is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):  # it died before the kernel knew
        os._exit(1)
