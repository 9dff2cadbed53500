"""Files and folders that are either old or new and never half of both. No torch."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path


def write_atomically(path: Path, data: bytes | Iterable[bytes]) -> None:
    """The file is either what it was or all of ``data``, also after a kill or a power cut."""
    temporary = path.with_name(f".tmp-{path.name}-{secrets.token_hex(4)}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def link_folder(folder: Path, place: Path) -> None:
    """The same files under another name, in one commit; copied where they cannot be linked.

    Raises:
        OSError: the folder went away, or the place cannot be written; nothing is changed then.
    """
    temporary = place.with_name(f".tmp-{place.name}-{secrets.token_hex(4)}")
    temporary.mkdir()
    try:
        for file in folder.iterdir():
            try:
                os.link(file, temporary / file.name)
            except OSError:
                shutil.copyfile(file, temporary / file.name)
                _flush(temporary / file.name)
        _flush(temporary)
        temporary.rename(place)
        _flush(place.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
