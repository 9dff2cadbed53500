"""A text with masks as it is kept: what stands in each mask, and how words are drawn for them."""

from __future__ import annotations

from typing import Literal

import msgspec

from tfm.tui.conversation import shortened
from tfm.tui.gaps import Gap, GapText
from tfm.tui.widgets.sampling_panel import Decoding


class FilledHead(msgspec.Struct):
    """As much of a file as a list needs."""

    name: str = ""
    source: str = ""

    @property
    def title(self) -> str:
        return self.name or shortened(self.source)

    @property
    def size(self) -> int:
        return 1


class FilledWork(msgspec.Struct, kw_only=True):
    """One text, its masks in order."""

    format: Literal["tfm-fill"] = "tfm-fill"
    version: int = 1
    key: str = ""  # its file's name
    name: str = ""  # given by a person
    started: float = 0.0  # seconds since the epoch
    source: str = ""
    gaps: list[Gap] = []
    here: int = 0  # the mask that keys act on
    order: str = ""
    decoding: Decoding | None = None

    def __post_init__(self) -> None:
        """Raises ValueError where a file has not a gap for each mask of its text."""
        n_masks = len(GapText(self.source).gaps)
        if len(self.gaps) != n_masks:
            raise ValueError(f"its text has {n_masks} masks and {len(self.gaps)} were kept")

    @property
    def title(self) -> str:
        return self.name or shortened(self.source)

    @property
    def size(self) -> int:
        return 1

    @property
    def empty(self) -> bool:
        return not self.source.strip()

    @property
    def text(self) -> GapText:
        """The text with its gaps, for the screen."""
        text = GapText(self.source)
        text.gaps = self.gaps
        return text
