"""Settings: what the app remembers from one start to the next, in ``$TFM_HOME/settings.json``.

To remember one more thing, give :class:`Settings` a field with a default and call
:meth:`SettingsFile.change` where it changes. A value that cannot be used costs its default and one
sentence; a file that held one is kept beside the new one. Fields that this version does not know stay
in the file, and a change writes only the fields that changed, so two windows or two versions of the app
do not undo one another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from tfm.core.catalog import checkpoint_home
from tfm.train.files import write_atomically

MAX_BYTES = 4 << 20


Axis = Literal["step", "seconds", "tokens"]
Split = Literal["both", "train", "validation"]


class CurveSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the curves of runs were looked at."""

    axis: Axis = "step"
    smoothing: float = 0.0
    log: bool = False
    split: Split = "both"
    shown: tuple[str, ...] = ()  # ids of the curves that were chosen; (): what fits


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every field has a default, which is what a new user gets."""

    theme: str = "tfm-dark"
    reduced_motion: bool = False  # nothing slides, fades or blinks
    mode: str = "translate"  # the one that was left last
    models: dict[str, str] = {}  # by mode: the one that was chosen last
    confidence: bool = False  # text is coloured by how sure the model was
    welcomed: bool = False  # the first-run hint was seen
    curves: CurveSettings = CurveSettings()  # how the training panel was looked at


class SettingsFile:
    """The settings of this app and the file that they are in."""

    def __init__(self, path: Path | None = None) -> None:
        """Read the file; where there is none, or none that can be used, the defaults stand."""
        self.path = path if path is not None else checkpoint_home() / "settings.json"
        stored, self.problems = self._read()  # what was wrong with the file, a sentence each
        self.settings = msgspec.convert(stored, Settings)
        self._unsaved: dict[str, Any] = {}

    @property
    def unsaved(self) -> bool:
        """Is there something to save?"""
        return bool(self._unsaved)

    def change(self, settings: Settings) -> None:
        """Other settings. They are on disk after :meth:`save`."""
        before, now = _fields(self.settings), _fields(settings)
        self._unsaved |= {name: value for name, value in now.items() if value != before[name]}
        self.settings = settings

    def save(self) -> None:
        """Write what changed into the file as it is by now, as one atomic step.

        Raises:
            OSError: it cannot be written; nothing is lost, and the next call tries again.
        """
        changes = dict(self._unsaved)
        if not changes:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        stored, problems = self._read()
        if problems:
            self._put_aside()
        data = msgspec.json.format(msgspec.json.encode({**stored, **changes}), indent=1)
        write_atomically(self.path, data + b"\n")
        self._unsaved = {n: v for n, v in self._unsaved.items() if n not in changes or v != changes[n]}

    def _read(self) -> tuple[dict[str, Any], list[str]]:
        """The file's fields that can be used, those that are not ours included, and what is wrong with it."""
        try:
            with self.path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                raise ValueError(f"it is larger than {MAX_BYTES:,} bytes")
            stored = msgspec.json.decode(data, type=dict[str, Any])
        except FileNotFoundError:
            return {}, []
        except (OSError, ValueError, RecursionError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            return {}, [f"{self.path} cannot be used, so the defaults are: {reason}."]
        problems: list[str] = []
        for field in msgspec.structs.fields(Settings):
            try:
                if field.name in stored:
                    msgspec.convert(stored[field.name], field.type)
            except msgspec.ValidationError as error:
                del stored[field.name]
                problems.append(f"{self.path}: {field.name} has its default: {error}.")
        return stored, problems

    def _put_aside(self) -> None:
        """Keep the file that could not be used, over none that lies there."""
        number = 1
        while (kept := self.path.with_name(f"{self.path.stem}.damaged-{number}.json")).exists():
            number += 1
        self.path.rename(kept)


def _fields(settings: Settings) -> dict[str, Any]:
    """The fields as JSON has them."""
    values: dict[str, Any] = msgspec.to_builtins(settings)
    return values
