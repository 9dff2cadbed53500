"""Where a run begins: with random weights, with those of another checkpoint, or where it stopped."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from tfm.core.catalog import NoSuchCheckpoint, find_checkpoint
from tfm.core.chat import TEMPLATE_FILE
from tfm.core.checkpoint import Checkpoint
from tfm.core.config import ModelConfig
from tfm.train.config import FAMILIES, LoopConfig, TrainConfig
from tfm.train.events import Preparing
from tfm.train.parallel import Processes
from tfm.train.preparation import Base
from tfm.train.tasks import Task, make_task

MANY_EPOCHS = 300  # more than that, and a person has probably not chosen them


def find_initial(name: str) -> Path:
    """The checkpoint that ``loop.init_from`` names, as every command would find it.

    Raises:
        ValueError: there is none.
    """
    try:
        return find_checkpoint(name)
    except NoSuchCheckpoint as error:
        raise ValueError(f"loop.init_from: {error}") from None


def base_of(checkpoint: Checkpoint, config: TrainConfig, resumed: bool) -> Base:
    """What a checkpoint settles for a run that goes on from it, or starts from it.

    Raises:
        ValueError: its family is not the one that the objective trains.
    """
    wanted, found = FAMILIES[config.objective], checkpoint.config.family
    if found != wanted:
        raise ValueError(
            f"{checkpoint.path} is of the family {found}, but {config.objective} trains {wanted}"
        )
    template = checkpoint.path / TEMPLATE_FILE
    return Base(
        tokenizer=checkpoint.tokenizer,
        model_config=checkpoint.config
        if resumed
        else checkpoint.config.replace(dropout=config.model.dropout),
        files={TEMPLATE_FILE: template.read_bytes()} if template.is_file() else {},
    )


def differences(config: TrainConfig, architecture: ModelConfig) -> str:
    """The fields of ``[model]`` that a checkpoint has otherwise, for a person."""
    asked = config.model
    names = [n for n in asked.__struct_fields__ if getattr(asked, n) != getattr(architecture, n)]
    return ", ".join(names)


def too_often(loop: LoopConfig, steps_per_epoch: float) -> list[str]:
    """Advice, where a corpus is so small that a model would learn it by heart."""
    epochs = loop.max_steps / steps_per_epoch
    if epochs < MANY_EPOCHS or loop.patience or loop.max_minutes:
        return []
    return [
        f"{loop.max_steps:,} steps read this corpus {epochs:,.0f} times; with loop.patience = 5 the run ends "
        "when it learns no more, or set fewer loop.max_steps"
    ]


def make_shared_task(
    config: TrainConfig, base: Base | None, processes: Processes
) -> Generator[Preparing, None, tuple[Task, str]]:
    """As :func:`make_task`, for all processes: the first makes the corpus ready, the others find it."""
    making, made = make_task(config, base), list[tuple[Task, str]]()

    def go_on() -> Preparing | None:
        try:
            return next(making)
        except StopIteration as done:
            made.append(done.value)
            return None

    try:
        while (event := processes.first(go_on, Preparing | None)) is not None:
            yield event
        while not made:
            go_on()
    finally:
        making.close()
    return made[0]
