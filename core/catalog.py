"""Which checkpoints are there: bundled ones, those under ``$TFM_HOME``, those of runs, any path. No torch.

Everything a list shows is read from small files (config.json, card.md, training.json) and from the
header of model.safetensors, so that listing a hundred checkpoints costs milliseconds and no memory.
"""

from __future__ import annotations

import difflib
import importlib.resources
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import platformdirs

from tfm.core import run_checkpoints
from tfm.core.config import ModelConfig
from tfm.core.engine.protocol import ModelInfo

WEIGHTS = "model.safetensors"
SMALL_FILE = 1 << 20  # bytes; config, card and training record are text that a person reads
MAX_HEADER = 100_000_000  # bytes, the limit of the safetensors format
MAX_CARD = 256 << 10  # bytes of card.md that are read
MAX_SUMMARY = 200  # characters

Source = Literal["bundled", "local", "run", "path"]


class NoSuchCheckpoint(ValueError):
    """The name or path given names no checkpoint."""


def checkpoint_home() -> Path:
    """The user's own folder: ``$TFM_HOME``, else the platform's user data folder.

    Checkpoints lie in ``checkpoints/`` below it, runs in ``runs/``. Nothing is created here.
    """
    named = os.environ.get("TFM_HOME")
    return Path(named).expanduser() if named else platformdirs.user_data_path("tfm-tui", appauthor=False)


def bundled_folder() -> Path:
    """The folder of the checkpoints that ship with the package."""
    return Path(str(importlib.resources.files("tfm.checkpoints")))


def runs_home() -> Path:
    """Where training runs live."""
    return checkpoint_home() / "runs"


def new_checkpoint(name: str) -> Path:
    """Where a checkpoint of that name will lie, under ``$TFM_HOME``. Nothing is created here.

    Raises:
        ValueError: it is no plain name, or a bundled checkpoint has it.
    """
    if not name or Path(name).name != name or name.startswith((".", "_")) or not name.isprintable():
        raise ValueError(f"a checkpoint's name is a name and no path, not {_shorten(name)}")
    if (bundled_folder() / name).is_dir():
        raise ValueError(
            f"there is a bundled checkpoint {name}, which would be found first; choose another name"
        )
    return checkpoint_home() / "checkpoints" / name


def find_checkpoint(name_or_path: str) -> Path:
    """The folder of a bundled checkpoint, of one under ``$TFM_HOME``, of a run, or of a path, in this order.

    A run is named by its id or its folder; ``RUN@best``, ``RUN@500``, ``RUN@NAME`` name one of its
    checkpoints (see :mod:`tfm.core.run_checkpoints`), and so does ``RUN/step-000500``.

    Raises:
        NoSuchCheckpoint: (a ValueError) one sentence, with the names that come near.
    """
    if not name_or_path.strip() or "\0" in name_or_path:
        raise NoSuchCheckpoint("no model named; `tfm-tui models` lists those that are there")
    named = dict(reversed([(folder.name, folder) for folder, _ in _folders()]))  # bundled ones win
    if name_or_path in named:
        return named[name_or_path]
    if (folder := _of_run(name_or_path)) is not None:
        return folder
    path = Path(name_or_path).expanduser()
    if os.path.isfile(path / "config.json"):  # unlike Path.is_file, false for a name that is too long
        return path.resolve()
    shown = _shorten(name_or_path)
    if os.path.isdir(path):
        within = sorted(file.parent.name for file in path.glob("*/config.json"))
        hint = f"; it holds {', '.join(within[-3:])}: name one of these" if within else ""
        raise NoSuchCheckpoint(f"{shown} is no checkpoint folder (there is no config.json in it){hint}")
    known = [*named, *(run.name for run in _runs())]
    near = difflib.get_close_matches(name_or_path, known, n=3, cutoff=0.5)
    near += [name for name in known[::-1] if name.startswith(name_or_path + "-") and name not in near][:3]
    hint = f"did you mean {' or '.join(near)}?" if near else "`tfm-tui models` lists those that are there"
    raise NoSuchCheckpoint(f"no checkpoint {shown}: {hint}")


def list_models() -> list[ModelInfo]:
    """Bundled checkpoints, those under ``$TFM_HOME``, each by name, and what runs have come to, newest first.

    Broken ones say why.
    """
    trained = [(run.name, found) for run in _runs() if (found := run_checkpoints.find(run)) is not None]
    return [
        *(describe(folder, source) for folder, source in _folders()),
        *(msgspec.structs.replace(describe(folder, "run"), name=as_utf8(name)) for name, folder in trained),
    ]


def describe(folder: Path, source: Source | None = None) -> ModelInfo:
    """What a list shows of one checkpoint folder. Never raises: ``problem`` says what is wrong."""
    source = source or _source_of(folder)
    name = {"path": str(folder), "run": run_checkpoints.name_of(folder)}.get(source, folder.name)
    info = ModelInfo(
        name=as_utf8(name), path=as_utf8(str(folder)), family="", n_parameters=0, vocab_size=0,
        max_positions=0, size_bytes=0, source=source, summary=_summary(folder),
        chat=(folder / "chat_template.jinja").is_file(),
    )  # fmt: skip
    try:
        if info.path != str(folder):
            raise ValueError("the name of its folder is not UTF-8; rename it")
        config = ModelConfig.from_json(read_small(folder / "config.json"))
        info = msgspec.structs.replace(
            info, family=config.family, vocab_size=config.vocab_size, max_positions=config.max_positions
        )
        record = read_training_record(folder)
        scores, languages = record.get("scores"), record.get("languages")
        info = msgspec.structs.replace(
            info,
            n_parameters=count_parameters(folder / WEIGHTS),
            size_bytes=(folder / WEIGHTS).stat().st_size,
            scores=_scores(scores),
            languages=tuple(str(name) for name in languages) if isinstance(languages, list) else (),
        )
        if not (folder / "tokenizer.json").is_file():
            raise ValueError("tokenizer.json is missing")
    except (ValueError, OSError) as error:
        return msgspec.structs.replace(info, problem=_sentence(error))
    return info


def as_utf8(name: str) -> str:
    """The name of a file as text that can be sent: bytes that are no UTF-8 become U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")


def count_parameters(path: Path) -> int:
    """Numbers stored in a safetensors file, from its header alone.

    Raises:
        ValueError: the file is missing, cut short, or has no valid header.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} is missing")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(MAX_HEADER, size - 8):
            raise ValueError(f"{path.name} is cut short or no safetensors file")
        raw = file.read(length)
    try:
        header = msgspec.json.decode(raw, type=dict[str, dict[str, Any]])
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        end = max((int(entry["data_offsets"][1]) for entry in tensors), default=0)
        count = sum(int(math.prod(entry["shape"])) for entry in tensors)
    except (msgspec.DecodeError, KeyError, IndexError, TypeError):
        raise ValueError(f"{path.name} has no valid safetensors header") from None
    if size != 8 + length + end:
        raise ValueError(f"{path.name} should be {8 + length + end:,} bytes long and is {size:,}")
    return count


def _folders() -> Iterator[tuple[Path, Source]]:
    """Every checkpoint folder in the two places that are searched by name."""
    places: tuple[tuple[Path, Source], ...] = (
        (bundled_folder(), "bundled"),
        (checkpoint_home() / "checkpoints", "local"),
    )
    for place, source in places:
        try:
            children = sorted(place.iterdir())
        except OSError:  # not there, or not ours to read: then it holds nothing for us
            continue
        for child in children:
            # Half a checkpoint is listed, with what it lacks; a folder with neither file is something else.
            begun = (child / "config.json").is_file() or (child / WEIGHTS).is_file()
            if begun and not child.name.startswith("."):
                yield child, source


def _source_of(folder: Path) -> Source:
    for known, source in _folders():
        if known == folder:
            return source
    here = folder.parent.parent == runs_home() and run_checkpoints.name_of(folder)
    return "run" if here else "path"


# --------------------------------------------------------------------------- what runs have made
def _runs() -> list[Path]:
    """The folders of all runs, the newest first."""
    try:
        found = [(run.stat().st_ctime, run) for run in runs_home().iterdir() if run_checkpoints.is_run(run)]
    except OSError:  # not there, not ours to read, or removed while we looked
        return []
    return [run for _, run in sorted(found, reverse=True)]


def _of_run(name: str) -> Path | None:
    """The checkpoint that ``RUN``, ``RUN@WHICH`` or ``RUN/FOLDER`` names; None where there is no such run.

    Raises:
        NoSuchCheckpoint: there is such a run, but not that checkpoint; those it has are named.
    """
    for run_name, which in ((name, ""), name.rpartition("@")[::2]):
        for run in (runs_home() / run_name, Path(run_name).expanduser()) if run_name else ():
            if not os.path.isfile(run / "config.toml"):
                continue
            if (folder := run_checkpoints.find(run, which)) is not None:
                return folder.absolute()
            there = [f"{run_name}@{other}" for other in run_checkpoints.names(run)[-6:]]
            said = f"run {run.name} has no checkpoint {which or 'yet'}"
            raise NoSuchCheckpoint(f"{said}; it has {', '.join(there)}" if there else said)
    folder = runs_home() / name
    within = "/" in name and os.path.isfile(folder / "config.json") and run_checkpoints.is_run(folder.parent)
    return folder if within else None


def read_card(folder: Path) -> str:
    """card.md of a folder, as it is, cut at MAX_CARD; empty where there is none that can be read."""
    try:
        with (folder / "card.md").open("rb") as file:
            text = file.read(MAX_CARD).decode("utf-8", errors="replace")
            rest = len(file.read(1))
            size = os.fstat(file.fileno()).st_size
    except OSError:
        return ""
    return f"{text}\n\n[cut here: card.md is {size:,} bytes long]\n" if rest else text


def read_small(path: Path) -> bytes:
    """A file that a person may have written. Raises OSError, and ValueError where it is too large."""
    with path.open("rb") as file:
        data = file.read(SMALL_FILE + 1)
    if len(data) > SMALL_FILE:
        raise ValueError(f"{path.name} is larger than {SMALL_FILE:,} bytes")
    return data


def read_training_record(folder: Path) -> dict[str, Any]:
    """training.json of a folder, empty where there is none. Raises OSError and ValueError."""
    path = folder / "training.json"
    if not path.is_file():
        return {}
    try:
        return msgspec.json.decode(read_small(path), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ValueError(f"training.json: {error}") from None


def _scores(raw: object) -> dict[str, float]:
    if not isinstance(raw, dict):
        return {}
    return {
        str(name): float(value)
        for name, value in raw.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _summary(folder: Path) -> str:
    """The card's first line that says something, without its heading marks."""
    lines = read_card(folder).splitlines()
    return next((text for line in lines if (text := line.strip("# \t"))), "")[:MAX_SUMMARY]


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError):
        missing = isinstance(error, FileNotFoundError)
        name = Path(str(error.filename or "a file")).name
        return f"{name} is missing" if missing else f"{name} cannot be read: {error.strerror}"
    return str(error)


def _shorten(text: str) -> str:
    text = repr(text) if len(text) <= MAX_SUMMARY else repr(text[:MAX_SUMMARY]) + "..."
    return text
