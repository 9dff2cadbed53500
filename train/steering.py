"""Carrying out what people ask of a run while it trains.

Commands lie in the control inbox and are taken between two steps. Each is answered by one CommandDone,
whatever became of it: a handler that raises ValueError has refused, and its sentence is the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfm.train.control_inbox import Command
from tfm.train.events import AnyTrainEvent, CommandDone, Notice

if TYPE_CHECKING:
    from tfm.train.loop import Trainer
    from tfm.train.parallel import SharedInbox

MAX_PROMPTS = 32
MAX_PROMPT = 2000  # characters
_POLL = 0.1  # seconds between looks at the inbox of a run that pauses

Answer = Generator[AnyTrainEvent, None, str]  # what happens, then a sentence for the CommandDone ("": done)


def obey(trainer: Trainer, inbox: SharedInbox) -> Iterator[AnyTrainEvent]:
    """Carry out what lies in the inbox; a pause waits here until it is over."""
    paused = False
    while True:
        for command in inbox.take():
            if command.command in ("pause", "resume"):
                paused = command.command == "pause"
            yield from _carry_out(trainer, command)
        for problem in inbox.problems:
            yield Notice(level="warning", message=problem)
        if not paused or trainer.stopping:
            return
        time.sleep(_POLL)


def obey_early(trainer: Trainer, inbox: SharedInbox) -> Iterator[AnyTrainEvent]:
    """While the corpus is being prepared there is nothing to steer yet; a run can be stopped, though."""
    for command in inbox.take():
        stops = command.command == "stop"
        if stops:
            trainer.request_stop("asked to, before it began to train")
        yield CommandDone(
            command_id=command.id,
            command=command.command,
            args=command.args,
            ok=stops,
            message="" if stops else "the corpus is still being prepared; ask again when the run trains",
        )


def _carry_out(trainer: Trainer, command: Command) -> Iterator[AnyTrainEvent]:
    try:
        message, ok = (yield from _HANDLERS[command.command](trainer, command.args)), True
    except ValueError as error:
        message, ok = str(error), False
    yield CommandDone(
        command_id=command.id,
        command=command.command,
        args=command.args,
        ok=ok,
        message=message,
        step=trainer.progress.step,
    )


def _nothing_more(trainer: Trainer, args: dict[str, Any]) -> Answer:
    """``pause`` and ``resume``: the loop above has done it."""
    yield from ()
    return ""


def _stop(trainer: Trainer, args: dict[str, Any]) -> Answer:
    yield from ()
    trainer.request_stop("asked to")
    return ""


def _save(trainer: Trainer, args: dict[str, Any]) -> Answer:
    saved = trainer.save("command")
    yield saved
    return saved.path


def _evaluate(trainer: Trainer, args: dict[str, Any]) -> Answer:
    yield from trainer.evaluate()
    return ""


def _learning_rate(trainer: Trainer, args: dict[str, Any]) -> Answer:
    """``value`` for the next ``steps`` (to the end of the run); without one, the schedule's again."""
    yield from ()
    progress = trainer.progress
    value, steps = args.get("value"), args.get("steps", trainer.config.loop.max_steps)
    if value is not None and not (_is_number(value) and 0.0 <= value <= 1.0):
        raise ValueError("value must be a number in [0, 1]")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ValueError("steps must be a whole number, at least 1")
    progress.learning_rate_override = None if value is None else float(value)
    progress.override_until = progress.step + steps
    progress.guard.rate_factor = 1.0  # a person has decided what the guard had lowered
    return "the schedule's" if value is None else f"{value:g} up to step {progress.override_until:,}"


def _bookmark(trainer: Trainer, args: dict[str, Any]) -> Answer:
    """Save, and keep this checkpoint under ``name`` whatever comes."""
    name = args.get("name")
    if not isinstance(name, str):
        raise ValueError("a bookmark needs a name")
    first, keeper = trainer.processes.first, trainer.keeper
    first(lambda: keeper.check_bookmark(name), None)
    saved = trainer.save("command")
    yield saved
    folder = first(lambda: keeper.bookmark(name, trainer.run_dir.path / saved.path), Path)
    return f"{name} is step {trainer.progress.step:,}, kept as {folder.name}"


def _rollback(trainer: Trainer, args: dict[str, Any]) -> Answer:
    """To a bookmark or ``best`` (``name``), to a ``step`` that has a checkpoint, or to the newest one."""
    wanted = args.get("name", args.get("step", ""))
    if not isinstance(wanted, str | int) or isinstance(wanted, bool):
        raise ValueError("name must be a bookmark or 'best', step a whole number")
    folder = trainer.processes.first(lambda: trainer.keeper.find(str(wanted)), Path)
    yield from trainer.go_back(folder, "asked to")
    return f"at step {trainer.progress.step:,} again, as {folder.name} has it"


def _prompts(trainer: Trainer, args: dict[str, Any]) -> Answer:
    """Other fixed prompts (``texts``; none: those of the config), and what the model makes of them now."""
    texts = args.get("texts")
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError("texts must be a list of prompts")
    if len(texts) > MAX_PROMPTS or any(len(text) > MAX_PROMPT for text in texts):
        raise ValueError(f"at most {MAX_PROMPTS} prompts of at most {MAX_PROMPT:,} characters can be fixed")
    before = trainer.progress.prompts
    trainer.progress.prompts = tuple(texts)
    try:
        samples = trainer.samples()
    except ValueError:  # a prompt that this model cannot take
        trainer.progress.prompts = before
        raise
    yield samples
    n = len(samples.samples)
    return f"{n} prompt" if n == 1 else f"{n} prompts"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_HANDLERS: dict[str, Callable[[Trainer, dict[str, Any]], Answer]] = {
    "pause": _nothing_more,
    "resume": _nothing_more,
    "stop": _stop,
    "save": _save,
    "evaluate": _evaluate,
    "learning_rate": _learning_rate,
    "bookmark": _bookmark,
    "rollback": _rollback,
    "prompts": _prompts,
}
