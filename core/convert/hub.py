"""Where an import comes from: a folder, a GGUF file, or a repository on a hub."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tfm.core.convert.table import ConvertError

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# All that a converter looks at; weights in other formats stay where they are.
WANTED = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.spm", "*.bpe.model", "README.md")


def import_any(
    source: str,
    destination: Path,
    *,
    source_language: str | None = None,
    target_language: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Import whatever ``source`` names into a new checkpoint folder.

    Raises:
        ValueError: one sentence that names the file and the tensor or key.
    """
    path = Path(source).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        from tfm.core.convert.gguf import import_gguf

        return import_gguf(path, destination, progress=progress)
    if path.is_file():
        raise ConvertError(f"{path} is a file; name the folder that it lies in, or a .gguf file")
    origin = None
    if not path.is_dir():
        if not _HUB_ID.fullmatch(source):
            raise ConvertError(f"there is no folder or file {source}")
        path, origin = download(source), source
    from tfm.core.convert.huggingface_in import import_folder

    return import_folder(
        path,
        destination,
        source_language=source_language,
        target_language=target_language,
        origin=origin,
        progress=progress,
    ).path


def download(repository: str) -> Path:
    """The folder of a hub's repository, in the hub client's own cache.

    Raises:
        ConvertError: the client is not installed, or the hub says no.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise ConvertError(
            f"there is no folder {repository}; if it is a hub id, install the client first: "
            "pip install 'tfm-tui[hub]'"
        ) from None
    try:
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=list(WANTED)))
    except Exception as error:  # the client's errors come from its HTTP library, whichever that is
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConvertError(
            f"{repository} is no folder here and cannot be fetched from the hub: {reason}"
        ) from None
