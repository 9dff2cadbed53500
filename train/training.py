"""A process that trains: it owns its run, logs what happens, listens to signals, and says how it ended.

Of several that train one run, the first does all of that; the others help it and say nothing. This
module loads torch when it begins to train.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from tfm.train.config import TrainConfig, load_config
from tfm.train.control_inbox import ControlInbox
from tfm.train.event_log import EventLog
from tfm.train.events import AnyTrainEvent, Notice, RunEnded
from tfm.train.files import write_atomically
from tfm.train.resolve import to_toml
from tfm.train.run_dir import RunDir
from tfm.train.workers import die_with_parent, is_supervised

if TYPE_CHECKING:
    from tfm.train.parallel import Processes


class Stoppable(Protocol):
    def send(self, command: str) -> object: ...


@contextmanager
def owned(run: RunDir, config: TrainConfig) -> Iterator[None]:
    """Within the block this process trains the run, with this config. Raises RunLocked where another does."""
    with run.lock():
        run.sweep()
        write_atomically(run.config_path, to_toml(config).encode())
        yield


def train_and_log(
    run: RunDir, config: TrainConfig, processes: Processes | None = None
) -> Iterator[AnyTrainEvent]:
    """Train a run that is owned; log every event and yield it."""
    log, inbox = EventLog(run), ControlInbox(run)
    try:
        with _listening(inbox):
            if not is_supervised():
                yield from drop_old_commands(log, inbox)
            yield from _logged(run, config, log, inbox, processes)
    finally:
        log.close()


def drop_old_commands(log: EventLog, inbox: ControlInbox) -> Iterator[Notice]:
    """Commands that a dead trainer left are not meant for this one; who owns the run drops them at once."""
    for left in inbox.take() if log.n_before else ():
        message = f"the command {left.command}, sent while nobody trained, was dropped"
        yield log.append(Notice(level="warning", message=message))


def _logged(
    run: RunDir, config: TrainConfig, log: EventLog, inbox: ControlInbox, processes: Processes | None
) -> Iterator[AnyTrainEvent]:
    step = 0
    try:
        from tfm.train.loop import Trainer
        from tfm.train.parallel import ALONE

        trained = Trainer(config, run, resume=True, processes=processes or ALONE).run()
        try:
            for event in trained:
                step = getattr(event, "step", step)
                yield log.append(event)
        except GeneratorExit:
            inbox.send("stop")
            for event in trained:
                log.append(event)
            raise
    except (Exception, KeyboardInterrupt) as error:
        stopped = isinstance(error, KeyboardInterrupt)
        message = processes.blame(error, _sentence(error)) if processes else _sentence(error)
        ended = RunEnded(reason="stopped" if stopped else "failed", step=step, message=message)
        with suppress(OSError):  # the disk may be what failed
            ended = log.append(ended)
        yield ended
        raise


def _sentence(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted at once: what came after the newest checkpoint is lost"
    first = (str(error).splitlines() or [""])[0]
    return first if isinstance(error, ValueError) and first else f"{type(error).__name__}: {first}"


# --------------------------------------------------------------------------- one of several processes
def work(run: RunDir) -> None:
    """Train as one of the processes that ``run_workers`` started, which owns the run."""
    from tfm.train.parallel import joined

    die_with_parent()
    for number in (signal.SIGTERM, signal.SIGINT):  # they may be sent to all; the parent listens
        signal.signal(number, signal.SIG_IGN)
    config = load_config(run.config_path)
    with joined() as processes:
        if processes.lead:
            for _ in train_and_log(run, config, processes):
                pass
        else:
            assist(run, config, processes)


def assist(run: RunDir, config: TrainConfig, processes: Processes) -> None:
    """Train, and leave it to the first process to speak of it."""
    from tfm.train.loop import Trainer

    try:
        trainer = Trainer(config, run, resume=True, processes=processes)
        with _listening(trainer.inbox):
            for _ in trainer.run():
                pass
    except (Exception, KeyboardInterrupt) as error:
        processes.blame(error, _sentence(error))
        raise


# --------------------------------------------------------------------------- signals
def _listening(inbox: Stoppable) -> AbstractContextManager[None]:
    return nullcontext() if is_supervised() else signals_ask_to_stop(inbox)


@contextmanager
def signals_ask_to_stop(inbox: Stoppable) -> Iterator[None]:
    """SIGTERM and SIGINT ask to save and stop, a second SIGINT interrupts; SIGHUP does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not asked:
            asked = True
            inbox.send("stop")

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
