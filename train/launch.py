"""Starting, steering and stopping trainers.

A detached trainer is ``python -m tfm.train.launch RUN``: its own session, so that no terminal takes
it along; everything it has to say is in the run directory. With ``--nproc N`` it starts N more, which
train side by side, and watches them. This module loads torch in the trainers only.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec

from tfm.train import events
from tfm.train.config import TrainConfig, load_config, parse_config
from tfm.train.control_inbox import ControlInbox
from tfm.train.event_log import EventLog, EventReader
from tfm.train.events import AnyTrainEvent, CommandDone, RunEnded, RunStarted, TrainEvent
from tfm.train.resolve import resolve_config, to_toml
from tfm.train.run_dir import RunDir, RunLocked
from tfm.train.training import assist, drop_old_commands, owned, signals_ask_to_stop, train_and_log, work
from tfm.train.workers import run_workers

START_PATIENCE = 15.0  # seconds to wait for a trainer's first step of life before leaving it alone
ANSWER_PATIENCE = 120.0  # seconds a trainer may take to answer; it looks at its inbox once a step
_POLL = 0.1
_LOCKED = 3  # exit status of a trainer that found its run taken


# --------------------------------------------------------------------------- starting
def start_detached(
    config_path: Path | str | None,
    overrides: dict[str, str] | None = None,
    resume: str | Path | None = None,
    home: Path | None = None,
    nproc: int = 1,
) -> RunDir:
    """Start a trainer that outlives this process; returns once it trains, or is known to prepare.

    Args:
        config_path: TOML file; None or "" where ``resume`` names a run, which has its own.
        overrides: ``{"optim.learning_rate": "1e-3"}``.
        resume: id or path of a run to go on with.
        home: folder of the runs, if not ``runs_home()``.
        nproc: processes on this machine that train together.

    Raises:
        RunLocked: the run is being trained already.
        ValueError: a bad config, missing data, or the sentence with which the trainer gave up.
    """
    run, _ = _prepare(config_path, overrides or {}, resume, home)
    if run.is_locked():
        raise RunLocked(run.locked_message())
    reader = EventReader(run.events_path)
    while reader.poll():
        pass  # what an earlier trainer wrote
    command = [sys.executable, "-m", "tfm.train.launch", str(run.path)]
    if resume:  # a new run's config is in its directory already
        command += ["--config", str(Path(config_path).expanduser().absolute())] if config_path else []
        command += [f"--set={key}={value}" for key, value in (overrides or {}).items()]
    if nproc > 1:
        command += [f"--nproc={nproc}"]
    with open(os.open(run.log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=run.path,
            env={**os.environ, "PYTHONSAFEPATH": "1", "PYTHONUTF8": "1"},
            start_new_session=True,
        )
    threading.Thread(target=process.wait, daemon=True).start()  # or it stays a zombie when it ends
    _await_start(run, process, reader)
    return run


def _await_start(run: RunDir, process: subprocess.Popen[bytes], reader: EventReader) -> None:
    """Return when this process trains; raise if it ended without. The log may be another's too."""
    deadline = time.monotonic() + START_PATIENCE
    started, failure = False, ""
    while time.monotonic() < deadline:
        status, owner = process.poll(), run.owner()  # before the log, so that last words are read
        for line in reader.poll():
            event = events.decode(line)
            started |= isinstance(event, RunStarted)
            if isinstance(event, RunEnded) and event.reason == "failed":
                failure = event.message
        if status == _LOCKED:
            raise RunLocked(run.locked_message())
        if status is not None and status != 0:
            raise ValueError(failure or f"the trainer ended with status {status}; {run.log_path} says why")
        if status == 0 or (started and owner is not None and owner.pid == process.pid):
            return
        time.sleep(_POLL)


def run_foreground(
    config_path: Path | str | None,
    overrides: dict[str, str] | None = None,
    resume: str | Path | None = None,
    home: Path | None = None,
) -> Iterator[TrainEvent]:
    """Train in this process and yield what happens; arguments and errors as for ``start_detached``.

    Ctrl+C and SIGTERM save and stop, a second Ctrl+C stops at once. Whoever stops listening (closes
    the iterator) makes the trainer save and stop too.
    """
    run, config = _prepare(config_path, overrides or {}, resume, home)
    with owned(run, config):
        yield from train_and_log(run, config)


def run_with_others(
    config_path: Path | str | None,
    overrides: dict[str, str] | None = None,
    resume: str | Path | None = None,
    home: Path | None = None,
) -> Iterator[AnyTrainEvent]:
    """Train as one of the processes that torchrun started; arguments and errors as for ``start_detached``.

    Only the first of them yields what happens. On several machines the run's folder is to be the same
    everywhere, and the files of the corpus to be found under the same names.
    """
    from tfm.train.parallel import joined

    def prepare() -> tuple[Path, str]:
        run, config = _prepare(config_path, overrides or {}, resume, home)
        return run.path, to_toml(config)

    with joined() as processes:
        path, toml = processes.first(prepare, tuple[Path, str])
        run, config = RunDir(path), parse_config(msgspec.toml.decode(toml), str(path))
        with ExitStack() as held:
            processes.first(lambda: held.enter_context(owned(run, config)), None)
            if processes.lead:
                yield from train_and_log(run, config, processes)
            else:
                assist(run, config, processes)


def _with_workers(run: RunDir, config: TrainConfig, nproc: int) -> int:
    """Own the run and have it trained by several processes."""
    inbox = ControlInbox(run)
    with owned(run, config), signals_ask_to_stop(inbox):
        log = EventLog(run)
        try:
            for _ in drop_old_commands(log, inbox):
                pass
        finally:
            log.close()  # before the first process opens it
        return run_workers(run, nproc)


def _prepare(
    config_path: Path | str | None,
    overrides: dict[str, str],
    resume: str | Path | None,
    home: Path | None,
) -> tuple[RunDir, TrainConfig]:
    """The run, a new one if none is resumed, and the config it shall go on with."""
    if not resume:
        if not config_path:
            raise ValueError("name a config file to train from, or a run to resume")
        config = resolve_config(config_path, overrides)
        return RunDir.create(to_toml(config), config.name, home), config
    run = RunDir.open(resume, home)
    config = resolve_config(config_path or run.config_path, overrides)
    before = load_config(run.config_path)
    for section in ("objective", "data", "model"):
        if getattr(config, section) != getattr(before, section):
            raise ValueError(
                f"run {run.id} cannot be resumed with another {section} than in its {run.config_path}; "
                "start a new run instead"
            )
    return run, config


# --------------------------------------------------------------------------- steering
def command(
    run: RunDir, name: str, args: dict[str, object] | None = None, timeout: float = ANSWER_PATIENCE
) -> CommandDone:
    """Send a command to a run's trainer and wait for its acknowledgement.

    Raises:
        ValueError: nobody trains the run, or no answer came in time.
    """
    for event in ask(run, name, args, timeout):
        if isinstance(event, CommandDone):
            return event
    raise ValueError(f"run {run.id} ended before it answered {name!r}")


def stop(run: RunDir, timeout: float = ANSWER_PATIENCE) -> RunEnded:
    """Have a run's trainer save and stop, and wait until it has.

    Raises:
        ValueError: nobody trains the run, its trainer dies meanwhile, or it does not stop in time.
    """
    for _, event in _conversation(run, "stop", None, timeout):
        if isinstance(event, RunEnded):
            return event
    raise ValueError(f"the trainer of run {run.id} died before it could save; {_resume_hint(run)}")


def ask(
    run: RunDir, name: str, args: dict[str, object] | None = None, timeout: float = ANSWER_PATIENCE
) -> Iterator[AnyTrainEvent]:
    """Send a command; yield what the trainer tells from then on, until it has acknowledged it.

    Raises:
        ValueError: nobody trains the run, or no answer came in time.
    """
    for command_id, event in _conversation(run, name, args, timeout):
        yield event
        if isinstance(event, CommandDone) and event.command_id == command_id:
            return


def _conversation(
    run: RunDir, name: str, args: dict[str, object] | None, timeout: float
) -> Iterator[tuple[str, AnyTrainEvent]]:
    """Send a command; yield its id with every event from then on, until the run has ended."""
    require_running(run)
    reader = EventReader(run.events_path)
    while reader.poll():
        pass  # the past
    command_id = ControlInbox(run).send(name, args)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        alive = is_alive(run)  # before the log, so that last words are read
        for line in reader.poll():
            yield command_id, events.decode(line)
        if not alive:
            return
        time.sleep(_POLL)
    raise ValueError(
        f"run {run.id} ({run.owner()}) has not answered {name!r} in {timeout:.0f} s; "
        "it will act on it when its current step is done"
    )


def is_alive(run: RunDir) -> bool:
    """Whether somebody trains the run, or is about to."""
    return run.is_locked() or run.state() in ("running", "paused")


def require_running(run: RunDir) -> None:
    """Raise ValueError saying what became of the run, unless somebody trains it."""
    if is_alive(run):
        return
    state, owner = run.state(), run.owner()
    if state == "lost":
        raise ValueError(f"run {run.id}: its trainer {owner or ''} is gone; {_resume_hint(run)}")
    raise ValueError(f"run {run.id} is not running: it is {state}")


def _resume_hint(run: RunDir) -> str:
    newest = run.checkpoints()[-1:]
    from_where = f"from {newest[0].name}" if newest else "from the beginning, as nothing was saved"
    return f"`tfm-tui train --resume {run.id}` goes on {from_where}"


# --------------------------------------------------------------------------- the trainer's process
def main(argv: list[str] | None = None) -> int:
    """Train in a run directory. Exit status: 0 ended as it should, 1 failed, 2 bad input, 3 run taken."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    parser = argparse.ArgumentParser(prog="python -m tfm.train.launch", description=main.__doc__)
    parser.add_argument("run", type=Path, help="the run directory")
    parser.add_argument("--config", help="another config to go on with")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="change one of its keys")
    parser.add_argument("--nproc", type=int, default=1, metavar="N", help="train with so many processes")
    parser.add_argument("--worker", action="store_true", help="be one of those, as the environment says")
    arguments = parser.parse_args(argv)
    try:
        if arguments.worker:
            work(RunDir(arguments.run))
            return 0
        changes = dict(change.split("=", 1) for change in arguments.set)
        if arguments.nproc > 1:
            return _with_workers(*_prepare(arguments.config, changes, arguments.run, None), arguments.nproc)
        for _ in run_foreground(arguments.config, changes, resume=arguments.run):
            pass
    except RunLocked as error:
        print(f"error: {error}", file=sys.stderr)
        return _LOCKED
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
