"""``models.card``, ``models.verify``, ``models.delete``: checkpoints as folders, whole or broken.

The handlers run in a thread of their own.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tfm.core import catalog
from tfm.core.config import ModelConfig
from tfm.core.convert.limited import LimitedError, run_limited
from tfm.core.engine.protocol import (
    Event,
    ModelCard,
    ModelInfo,
    ModelsCard,
    ModelsDelete,
    ModelsVerify,
    ModelVerified,
    Request,
)
from tfm.core.engine.steps import NotWanted, Teller

TOKENIZERS = ("tokenizer.json", "target_tokenizer.json")
TOKENIZER_SECONDS, TOKENIZER_MEMORY = 120.0, 4 << 30  # as at an import


def model_card(request: Request, emit: Callable[[Event], None], _cancelled: Callable[[], bool]) -> None:
    """The handler of :class:`ModelsCard`. What cannot be read is left out; ``info.problem`` says why."""
    assert isinstance(request, ModelsCard)
    folder = catalog.find_checkpoint(request.model)
    emit(
        ModelCard(
            id=request.id,
            info=catalog.describe(folder),
            card=catalog.read_card(folder),
            config=_config(folder),
            files={
                catalog.as_utf8(file.name): file.stat().st_size
                for file in sorted(folder.iterdir())
                if file.is_file()
            },
            training=_training(folder),
        )
    )


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = ModelConfig.from_json(catalog.read_small(folder / "config.json"))
    except (OSError, ValueError):
        return {}
    fields: dict[str, Any] = msgspec.to_builtins(config)
    return fields


def _training(folder: Path) -> dict[str, Any]:
    try:
        return catalog.read_training_record(folder)
    except (OSError, ValueError):
        return {}


def verify_model(request: Request, emit: Callable[[Event], None], cancelled: Callable[[], bool]) -> None:
    """The handler of :class:`ModelsVerify`: what is wrong is the answer, and no error.

    A tokenizer may bring its parser down, so a limited child tries it first.

    Raises:
        ValueError: there is no such checkpoint.
    """
    assert isinstance(request, ModelsVerify)
    folder = catalog.find_checkpoint(request.model)
    teller = Teller(request.id, emit, cancelled)
    teller.tell("trying the tokenizer", 0, 1)
    told = (0, 0)

    def progress(done: int, total: int) -> None:
        nonlocal told
        told = (done, total)
        teller.tell("checking", done, total)

    try:
        problem = _tokenizer_problem(folder, teller)
        if not problem:
            from tfm.core.checkpoint import verify_checkpoint

            verify_checkpoint(folder, progress)
    except NotWanted:
        return
    except (ValueError, OSError) as error:
        problem = str(error)
    n_files = sum(file.is_file() for file in folder.iterdir())
    emit(ModelVerified(id=request.id, problem=problem, n_files=n_files, n_bytes=told[1]))


def _tokenizer_problem(folder: Path, teller: Teller) -> str:
    for name in TOKENIZERS:
        if not (folder / name).is_file():
            continue
        try:
            run_limited(
                "tfm.core.convert.tokenizer_files:check",
                str(folder / name),
                memory=TOKENIZER_MEMORY,
                seconds=TOKENIZER_SECONDS,
                look=teller.look,
            )
        except LimitedError as error:
            return f"{folder / name} {error}"
    return ""


Unload = Callable[[Path], int]
"""Lets go of a model in memory and says how many bytes that freed. ValueError: a request uses it."""


def delete_model(request: Request, unload: Unload) -> None:
    """Delete what :class:`ModelsDelete` names. It vanishes from the lists at once and in one piece.

    Raises:
        ValueError: it is none of the user's own, it is in use, or it cannot be deleted; nothing is
            changed then.
    """
    assert isinstance(request, ModelsDelete)
    folder = catalog.find_checkpoint(request.model)
    info = catalog.describe(folder)
    _check_own(info)
    unload(folder)
    doomed = folder.with_name(f".tmp-deleted-{secrets.token_hex(4)}")
    try:
        if folder.is_symlink():
            folder.unlink()  # what it points to is not ours to delete
            return
        folder.rename(doomed)
    except OSError as error:
        raise ValueError(f"{folder} cannot be deleted: {error.strerror}") from None
    shutil.rmtree(doomed, ignore_errors=True)
    if doomed.exists():
        raise ValueError(f"{info.name} is gone from the list, but files of it are left in {doomed}")


def _check_own(info: ModelInfo) -> None:
    why = {
        "bundled": "is bundled with the program",
        "run": "belongs to its training run",
        "path": "does not lie under $TFM_HOME",
    }.get(info.source)
    if why:
        raise ValueError(f"{info.name} {why}, so it is not deleted from here")
