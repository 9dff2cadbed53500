"""Two models side by side, field by field, what differs first. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

ABSENT = "-"


class Compared(NamedTuple):
    """One field of two configs, as a person reads it."""

    field: str
    one: str
    other: str

    @property
    def differs(self) -> bool:
        return self.one != self.other


def compare(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[Compared]:
    """Every field of either, those that differ first; otherwise in the order in which they stand."""
    fields = [*one, *(field for field in other if field not in one)]
    pairs = [Compared(field, _told(one, field), _told(other, field)) for field in fields]
    return sorted(pairs, key=lambda pair: not pair.differs)


def _told(fields: Mapping[str, Any], name: str) -> str:
    if name not in fields:
        return ABSENT
    value = fields[name]
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_told(value, key)}" for key in value) or "none"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
