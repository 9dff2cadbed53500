"""A notebook: the texts that were translated in one session, with every token of every translation."""

from __future__ import annotations

from typing import Literal

import msgspec

from tfm.tui.conversation import shortened
from tfm.tui.exchange import Exchange
from tfm.tui.widgets.sampling_panel import Decoding

RIVALS_KEPT = 50  # exchanges whose tokens keep their rivals; those of older ones are let go of


class Notebook(msgspec.Struct, kw_only=True):
    """Exchanges, oldest first, and how the next one is made."""

    format: Literal["tfm-translations"] = "tfm-translations"
    version: int = 1
    key: str = ""  # its file's name
    name: str = ""  # given by a person
    started: float = 0.0  # seconds since the epoch
    decoding: Decoding = Decoding()
    draft: str = ""  # the text in the input
    exchanges: list[Exchange] = []
    shown: int = -1  # the exchange on the screen

    def __post_init__(self) -> None:
        """Raises ValueError where a file names an exchange that is not there."""
        if not -1 <= self.shown < max(len(self.exchanges), 0):
            raise ValueError(f"there is no exchange {self.shown}")

    @property
    def title(self) -> str:
        """Its name, or the first text."""
        return self.name or shortened(self.exchanges[0].source if self.exchanges else self.draft)

    @property
    def size(self) -> int:
        return len(self.exchanges)

    @property
    def empty(self) -> bool:
        return not self.exchanges and not self.draft.strip()

    def add(self, exchange: Exchange) -> None:
        """Another exchange, which is shown; an older one's rivals may go."""
        self.exchanges.append(exchange)
        self.shown = len(self.exchanges) - 1
        if len(self.exchanges) > RIVALS_KEPT:
            self.exchanges[-1 - RIVALS_KEPT].forget_rivals()


class _ExchangeHead(msgspec.Struct):
    source: str = ""


class NotebookHead(msgspec.Struct):
    """As much of a notebook's file as a list needs."""

    name: str = ""
    draft: str = ""
    exchanges: list[_ExchangeHead] = []

    @property
    def title(self) -> str:
        return self.name or shortened(self.exchanges[0].source if self.exchanges else self.draft)

    @property
    def size(self) -> int:
        return len(self.exchanges)
