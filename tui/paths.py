"""Paths that are being typed, and how each would go on: for prompts that ask for a file or a folder."""

from __future__ import annotations

import asyncio
import os
from itertools import islice
from pathlib import Path

from textual.suggester import Suggester

LOOKED_AT = 20_000  # entries of a folder; one that holds more is not worth waiting for


def completed(text: str, suffixes: tuple[str, ...] = ()) -> str | None:
    """The path that begins like this and comes first, of folders and of files with one of the suffixes.

    A folder ends in a slash, so that the next look is into it. None: there is none, or it is whole already.
    Hidden ones are found by those who type their dot.
    """
    if not text or "\0" in text:
        return None
    folder, _, begun = text.rpartition("/")
    place = f"{folder}/" if "/" in text else ""
    try:
        with os.scandir(Path(place or ".").expanduser()) as entries:
            names = [
                f"{entry.name}/" if entry.is_dir() else entry.name
                for entry in islice(entries, LOOKED_AT)
                if entry.name.startswith(begun)
                and (begun or not entry.name.startswith("."))
                and (entry.is_dir() or entry.name.endswith(suffixes))
                and entry.name.isprintable()
            ]
    except (OSError, RuntimeError):  # no such folder, or no such user after the tilde
        return None
    best = min(names, default=None)
    return place + best if best is not None and place + best != text else None


class PathSuggester(Suggester):
    """Shows how a path in an Input would go on."""

    def __init__(self, *suffixes: str) -> None:
        """``suffixes``: of the files that are wanted; none: only folders are."""
        super().__init__(use_cache=False, case_sensitive=True)
        self._suffixes = suffixes

    async def get_suggestion(self, value: str) -> str | None:
        return await asyncio.to_thread(completed, value, self._suffixes)
