"""``models.pull``: fetch a published checkpoint, with progress, until it is there or nobody wants it."""

from __future__ import annotations

import re
from collections.abc import Callable

from tfm.core.catalog import checkpoint_home, describe
from tfm.core.engine.protocol import Event, LoadProgress, ModelPulled, ModelsPull, Request

_NAME = re.compile(r"([a-zA-Z0-9][\w.-]*/)?[a-zA-Z0-9][\w.-]*")
STEP = 0.01  # progress is told in steps of this fraction of a stage


class _NotWanted(Exception):
    """The request was cancelled while it was being served."""


def pull_model(request: Request, emit: Callable[[Event], None], cancelled: Callable[[], bool]) -> None:
    """The handler of :class:`ModelsPull`; runs in a thread of its own and loads no torch by itself.

    Raises:
        ValueError: there is such a checkpoint already, nothing of this name is known, or it cannot be
            fetched; one sentence.
    """
    assert isinstance(request, ModelsPull)
    if not _NAME.fullmatch(request.name):
        raise ValueError(f"{request.name!r} is no name of a published model")
    name = request.name.split("/")[-1]
    destination = checkpoint_home() / "checkpoints" / name
    if destination.exists():
        raise ValueError(f"there is a checkpoint {name} already, in {destination}")
    told: tuple[str, float] = ("", 0.0)

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal told
        if cancelled():
            raise _NotWanted
        fraction = min(done / total, 1.0) if total > 0 else 0.0
        if stage != told[0] or fraction >= told[1] + STEP:
            told = (stage, fraction)
            emit(LoadProgress(id=request.id, fraction=fraction, stage=stage))

    from tfm.core.convert.pull import pull  # loads torch, in this thread

    try:
        path = pull(request.name, destination, progress=progress)
    except _NotWanted:
        return
    emit(ModelPulled(id=request.id, info=describe(path)))
