"""``models.pull`` and ``models.import``: one more checkpoint, with progress, unless it is called off.

The handlers run in a thread of their own and load no torch before they need it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tfm.core.catalog import checkpoint_home, describe, new_checkpoint
from tfm.core.engine.protocol import Event, ModelImported, ModelPulled, ModelsImport, ModelsPull, Request
from tfm.core.engine.steps import NotWanted, Teller

_NAME = re.compile(r"([a-zA-Z0-9][\w.-]*/)?[a-zA-Z0-9][\w.-]*")


def pull_model(request: Request, emit: Callable[[Event], None], cancelled: Callable[[], bool]) -> None:
    """The handler of :class:`ModelsPull`.

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

    from tfm.core.convert.pull import pull

    try:
        path = pull(request.name, destination, progress=Teller(request.id, emit, cancelled).tell)
    except NotWanted:
        return
    emit(ModelPulled(id=request.id, info=describe(path)))


def import_model(request: Request, emit: Callable[[Event], None], cancelled: Callable[[], bool]) -> None:
    """The handler of :class:`ModelsImport`. What strangers wrote is parsed in limited children (convert/).

    Raises:
        ValueError: the name is taken or no name, or the source is not what it should be; one sentence.
    """
    assert isinstance(request, ModelsImport)
    destination = new_checkpoint(request.name)
    if destination.exists():
        raise ValueError(f"there is a checkpoint {request.name} already; choose another name")
    source = request.source.strip()
    if not source or "\0" in source or not Path(source).expanduser().exists():
        raise ValueError(f"there is no folder or file {source!r}")
    teller = Teller(request.id, emit, cancelled)
    teller.tell("reading", 0, 1)

    from tfm.core.convert.hub import import_any

    try:
        path = import_any(
            source,
            destination,
            source_language=request.source_language or None,
            target_language=request.target_language or None,
            progress=lambda done, total: teller.tell("importing", done, total),
        )
    except NotWanted:
        return
    emit(ModelImported(id=request.id, info=describe(path)))
