"""Several real processes that train one model, each watched from within."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from tfm.train.config import TrainConfig
from tfm.train.events import AnyTrainEvent, RunStarted
from tfm.train.loop import Trainer
from tfm.train.parallel import Processes, joined
from tfm.train.run_dir import RunDir


class Told(NamedTuple):
    """What one process saw."""

    events: list[AnyTrainEvent]
    read: list[list[int]]  # the examples of each pass of this process, in order


def train_together(
    config: TrainConfig,
    run: RunDir,
    count: int,
    meeting: Path,
    also: Callable[[Trainer, AnyTrainEvent], None] | None = None,
) -> list[Told]:
    """Train to the end with ``count`` processes over gloo; ``also`` is called in each at every event."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tfm.train.loop", "tfm.train.shards"])  # imported once for all tests
    meeting.mkdir()
    pipes, processes = [], []
    for rank in range(count):
        ours, theirs = context.Pipe()
        arguments = config, run.path, rank, count, meeting / "store", theirs, also
        processes.append(context.Process(target=_one, args=arguments))
        processes[-1].start()
        theirs.close()
        pipes.append(ours)
    answers = []
    for pipe in pipes:
        try:
            answers.append(pipe.recv())
        except EOFError:
            answers.append("ended without an answer")
    for process in processes:
        process.join()
    failures = [answer for answer in answers if isinstance(answer, str)]
    assert not failures, "\n".join(failures)
    return answers


def _one(
    config: TrainConfig, path: Path, rank: int, count: int, store: Path, pipe: Connection, also: Any
) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
        "TFM_RENDEZVOUS": store.as_uri(), "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    try:
        with joined() as processes:
            pipe.send(_watched(config, RunDir(path), processes, also))
    except BaseException:
        pipe.send(f"process {rank}: {traceback.format_exc()}")


def _watched(config: TrainConfig, run: RunDir, processes: Processes, also: Any) -> Told:
    trainer, told = Trainer(config, run, resume=True, processes=processes), Told([], [])
    for event in trainer.run():
        told.events.append(event)
        if isinstance(event, RunStarted):
            _watch(trainer, told.read)
        if also is not None:
            also(trainer, event)
    return told


def _watch(trainer: Trainer, read: list[list[int]]) -> None:
    plain = trainer.task.loss

    def loss(model: Any, indices: Any, *rest: Any) -> Any:
        read.append(indices.tolist())
        return plain(model, indices, *rest)

    trainer.task.loss = loss  # type: ignore[method-assign]
