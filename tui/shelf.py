"""What the Models mode knows: which checkpoints there are, which are in memory, what is going on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tfm.core.engine.protocol import HeldModel, ModelInfo
from tfm.tui.client import Stream
from tfm.tui.session import TASKS


@dataclass
class Work:
    """Something that takes a while and can be called off."""

    verb: str  # "loading", "verifying", "importing", "fetching"
    name: str
    stage: str = ""
    fraction: float = 0.0
    stream: Stream | None = None
    cancelled: bool = False


@dataclass
class Shelf:
    """Checkpoints in the order of the list, one of them chosen."""

    models: tuple[ModelInfo, ...] = ()
    held: tuple[HeldModel, ...] = ()
    budget_bytes: int = 0
    chosen: int = 0
    works: list[Work] = field(default_factory=list)
    verified: dict[str, str] = field(default_factory=dict)  # path: what is wrong, empty where nothing is
    compared: ModelInfo | None = None  # the one that others are compared with
    awaited: str = ""  # path of one that has just come, to choose when the list has it

    @property
    def here(self) -> ModelInfo | None:
        return self.models[self.chosen] if self.models else None

    def replace(self, models: Sequence[ModelInfo], held: Sequence[HeldModel], budget_bytes: int) -> None:
        """Take in a new list; the same model stays chosen, or one near it where it is gone."""
        before = self.here
        self.models, self.held, self.budget_bytes = tuple(models), tuple(held), budget_bytes
        paths = [info.path for info in self.models]
        if self.awaited in paths:
            self.chosen, self.awaited = paths.index(self.awaited), ""
        elif before is not None and before.path in paths:
            self.chosen = paths.index(before.path)
        self.chosen = max(0, min(self.chosen, len(self.models) - 1))

    def move(self, by: int) -> None:
        self.chosen = max(0, min(self.chosen + by, len(self.models) - 1))

    def in_memory(self, info: ModelInfo) -> list[HeldModel]:
        return [held for held in self.held if held.path == info.path]

    def name_of(self, path: str) -> str:
        """How the list calls what is in memory; a path that it does not hold, by its last part."""
        known = next((info.name for info in self.models if info.path == path), path)
        return known.rstrip("/").rsplit("/", 1)[-1] if known.startswith("/") else known


def reference(info: ModelInfo, models: Sequence[ModelInfo]) -> str:
    """What the engine finds it by: its name, or its path where a bundled one of that name comes first."""
    first = next((other for other in models if other.name == info.name), info)
    return info.name if first.path == info.path else info.path


def mode_for(info: ModelInfo) -> str:
    """The mode that it is good for; any model can be looked at in the lab."""
    return next((name for name, task in TASKS.items() if task.accepts(info)), "lab")


def does(info: ModelInfo) -> str:
    """The same in a word, for lists."""
    mode = mode_for(info)
    return "continue" if mode == "lab" and info.family == "decoder-only" else mode
