"""The engine's ``run.*`` operations, over the run directories of its machine. No torch.

Each handler runs in a thread of its own: it emits what it has to say and returns; a ValueError is the
answer to a request that cannot be served.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

from tfm.core.engine.box import box_stats, gpu_memory_of
from tfm.core.engine.protocol import (
    Event,
    Request,
    RunCheckpoints,
    RunCheckpointsListed,
    RunControl,
    RunEvents,
    RunFollow,
    RunFork,
    RunsList,
    RunsListed,
    RunStart,
    RunStarting,
    RunStats,
    TrainerStats,
)
from tfm.train import events
from tfm.train.control_inbox import ControlInbox
from tfm.train.event_log import EventReader
from tfm.train.forking import checkpoints_of, fork
from tfm.train.launch import is_alive, require_running, start_detached
from tfm.train.run_dir import RunDir, list_runs

Emit = Callable[[Event], None]
Cancelled = Callable[[], bool]
Handler = Callable[[Request, Emit, Cancelled], None]

_POLL = 0.1  # seconds between looks at a log that is being written
_BATCH = 500  # lines a message


def run_services() -> dict[type[Request], Handler]:
    """What the engine's server is given to serve runs."""
    return {
        RunsList: _list,
        RunStart: _start,
        RunFollow: _follow,
        RunControl: _control,
        RunCheckpoints: _checkpoints,
        RunFork: _fork,
        RunStats: _stats,
    }


def _list(request: Request, emit: Emit, cancelled: Cancelled) -> None:
    emit(RunsListed(id=request.id, runs=tuple(list_runs())))


def _start(request: Request, emit: Emit, cancelled: Cancelled) -> None:
    assert isinstance(request, RunStart)
    run = start_detached(request.config, request.overrides, request.resume, nproc=request.nproc)
    emit(RunStarting(id=request.id, run=run.id, path=str(run.path)))


def _control(request: Request, emit: Emit, cancelled: Cancelled) -> None:
    """Hand the command over; the trainer's acknowledgement is an event of the run."""
    assert isinstance(request, RunControl)
    run = RunDir.open(request.run)
    require_running(run)
    ControlInbox(run).send(request.command, request.args)


def _checkpoints(request: Request, emit: Emit, cancelled: Cancelled) -> None:
    assert isinstance(request, RunCheckpoints)
    run = RunDir.open(request.run)
    emit(RunCheckpointsListed(id=request.id, run=run.id, checkpoints=tuple(checkpoints_of(run))))


def _fork(request: Request, emit: Emit, cancelled: Cancelled) -> None:
    assert isinstance(request, RunFork)
    run = fork(RunDir.open(request.run), request.checkpoint, request.overrides)
    start_detached(None, resume=str(run.path))
    emit(RunStarting(id=request.id, run=run.id, path=str(run.path)))


def _family(trainer: psutil.Process) -> list[psutil.Process]:
    """All processes that train together: the owner may be one of several that one launcher started."""
    eldest = trainer
    while (parent := eldest.parent()) is not None and any(
        name in parent.cmdline() for name in ("tfm.train.launch", "torch.distributed.run")
    ):
        eldest = parent
    return [eldest, *eldest.children(recursive=True)]


def _stats(request: Request, emit: Emit, cancelled: Cancelled) -> None:
    """Nothing where the run has no trainer, or one on another machine: its figures would not be the run's."""
    assert isinstance(request, RunStats)
    owner = RunDir.open(request.run).owner()
    if owner is None or not owner.alive():
        return
    emit(box_stats(request.id))
    try:
        memory, cpu_seconds, pids = 0, 0.0, []
        for process in _family(psutil.Process(owner.pid)):
            memory += process.memory_info().rss
            times = process.cpu_times()
            cpu_seconds += times.user + times.system
            pids.append(process.pid)
    except psutil.Error:  # it ended while we looked
        return
    emit(
        TrainerStats(
            id=request.id, pid=owner.pid, memory=memory, cpu_seconds=cpu_seconds, at=time.monotonic(),
            gpu_memory=gpu_memory_of(pids),
        )
    )  # fmt: skip


def _follow(request: Request, emit: Emit, cancelled: Cancelled) -> None:
    """Everything after ``after_seq``, then what is new, until nobody trains the run any more."""
    assert isinstance(request, RunFollow)
    run = RunDir.open(request.run)
    reader = EventReader(run.events_path)
    n_bad = 0
    while not cancelled():
        alive = is_alive(run)  # before the log, so that the last events are read
        lines = reader.poll()
        new = [line for line in lines if events.decode(line).seq > request.after_seq]
        for first in range(0, max(len(new), reader.bad_lines > n_bad), _BATCH):
            batch = tuple(new[first : first + _BATCH])
            emit(RunEvents(id=request.id, run=run.id, lines=batch, bad_lines=reader.bad_lines))
            if cancelled():
                return
        n_bad = reader.bad_lines
        if not alive and not lines:
            return
        if not lines:
            time.sleep(_POLL)
