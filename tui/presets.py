"""Presets: sampling settings by name. Some ship with the app; one's own lie in ``$TFM_HOME/presets``.

One JSON file each, written whole beside the old one and renamed, so that several windows of the app and
people with an editor can work on them at once.
"""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from tfm.core.catalog import checkpoint_home
from tfm.core.sampling.settings import PRESETS, SamplingSettings
from tfm.train.files import write_atomically

MAX_NAME = 40  # characters
MAX_BYTES = 1 << 20  # of a file that is read
OWN = "own"  # what settings are called that no preset has


class NameTaken(ValueError):
    """Another preset has this name."""


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """A file in the folder; its name is the preset's."""

    format: Literal["tfm-preset"] = "tfm-preset"
    version: int = 1
    settings: SamplingSettings


class Found(NamedTuple):
    """What the folder holds: settings by name, and what is wrong with the files that hold none."""

    own: Mapping[str, SamplingSettings] = {}
    problems: Mapping[str, str] = {}

    @property
    def all(self) -> dict[str, SamplingSettings]:
        """The ones that ship with the app, then one's own."""
        return {**PRESETS, **self.own}

    def name_of(self, settings: SamplingSettings) -> str | None:
        """The preset that these settings are exactly."""
        return next((name for name, preset in self.all.items() if preset == settings), None)

    def beside(self, name: str | None, by: int) -> tuple[str, SamplingSettings]:
        """The preset ``by`` places after this one, round and round; from none, the first."""
        names = list(self.all)
        index = (names.index(name) + by) % len(names) if name in names else 0
        return names[index], self.all[names[index]]


class PresetFolder:
    """One's own presets on disk."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder if folder is not None else checkpoint_home() / "presets"

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def read(self) -> Found:
        """All of them, by name; a file that is no preset is told of and hides none of the others."""
        own: dict[str, SamplingSettings] = {}
        problems: dict[str, str] = {}
        try:
            files = [entry.name for entry in os.scandir(self.folder) if entry.name.endswith(".json")]
        except OSError:  # no folder yet, or not ours to read: then it holds nothing for us
            return Found()
        for file in sorted(files, key=lambda name: (name.casefold(), name)):
            name = file.removesuffix(".json")
            if file.startswith(".") or name.casefold() in PRESETS:
                continue
            try:
                own[name] = self._open(name)
            except ValueError as error:
                problems[name] = str(error)
        return Found(own, problems)

    def get(self, name: str) -> SamplingSettings:
        """One preset, shipped or own. Raises ValueError with a sentence where there is none."""
        return PRESETS[name] if name in PRESETS else self._open(name)

    def save(self, name: str, settings: SamplingSettings, *, over: bool = False) -> str:
        """Keep settings under a name; the name as it is kept. ``over``: in place of what has it.

        Raises:
            ValueError: the name will not do or is taken, or it cannot be written; one sentence.
        """
        name = checked(name)
        if not over and self.path(name).exists():
            raise NameTaken(f"there is a preset {name!r} already")
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            data = msgspec.json.format(msgspec.json.encode(Preset(settings=settings)), indent=1)
            write_atomically(self.path(name), data + b"\n")
        except OSError as error:
            raise ValueError(f"{self.folder} cannot be written to: {error.strerror}") from None
        return name

    def rename(self, old: str, new: str) -> str:
        """Another name, over none that is there; the name as it is kept. Raises ValueError."""
        new = checked(new)
        if new == old:
            return new
        try:
            if self.path(new).exists() and not self.path(new).samefile(self.path(old)):
                raise NameTaken(f"there is a preset {new!r} already")
            os.rename(self.path(old), self.path(new))
        except OSError as error:
            raise ValueError(f"{old!r} cannot be renamed: {error.strerror}") from None
        return new

    def delete(self, name: str) -> None:
        """Raises ValueError where it cannot be; one that is gone already is no error."""
        with contextlib.suppress(FileNotFoundError):
            try:
                self.path(name).unlink()
            except PermissionError as error:
                raise ValueError(f"{self.path(name)} cannot be deleted: {error.strerror}") from None

    def _open(self, name: str) -> SamplingSettings:
        """Raises ValueError with a sentence."""
        path = self.path(checked(name))
        try:
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                raise ValueError(f"it is larger than {MAX_BYTES:,} bytes")
            settings = msgspec.json.decode(data, type=Preset).settings
            settings.check()
        except FileNotFoundError:
            raise ValueError(f"there is no preset {name!r}") from None
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError) as error:  # what msgspec raises is a ValueError, too
            raise ValueError(f"{path} is no preset: {error}") from None
        return settings


def checked(name: str) -> str:
    """A name as a preset may have it. Raises ValueError with a sentence."""
    name = unicodedata.normalize("NFC", name.strip())
    letters = all(character.isalnum() or character in " ._-" for character in name)
    if not name or len(name) > MAX_NAME or not letters or not name[0].isalnum() or name.endswith("."):
        raise ValueError(
            f"names have 1 to {MAX_NAME} letters, digits, spaces, dots or hyphens, a letter or digit first"
        )
    if name.casefold() in (*PRESETS, OWN):
        raise ValueError(f"{name!r} is a name of the app's own: take another")
    return name
