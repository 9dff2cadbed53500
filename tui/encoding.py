"""A work as JSON while it is still being written, without holding up who writes and who looks.

What may still change (lists, structs that are not frozen) is copied first, which takes microseconds; the
copy is then encoded by another thread, a few hundred items at a time, because no other thread runs
while a piece is encoded: fifty thousand tokens in one piece would stop the screen for half a second.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import msgspec

PIECE = 256  # items encoded at once

T = TypeVar("T")


def snapshot(value: T) -> T:
    """The value as it is now, whatever happens to it later. What is frozen is shared."""
    if isinstance(value, list):
        return [snapshot(item) for item in value] if _holds_growing(value) else value[:]  # type: ignore[return-value]
    if not _grows(value):
        return value
    copied = copy.copy(value)
    for name in copied.__struct_fields__:  # type: ignore[attr-defined]
        if _grows(field := getattr(copied, name)):
            setattr(copied, name, snapshot(field))
    return copied


def encoded(value: Any) -> bytes:
    """JSON of a snapshot, which is used up. Lists begin a new line now and then."""
    if isinstance(value, list):
        if _holds_growing(value):
            return b"[" + b",\n".join(map(encoded, value)) + b"]"
        pieces = [value[at : at + PIECE] for at in range(0, len(value), PIECE)]
        return b"[" + b",\n".join(msgspec.json.encode(piece)[1:-1] for piece in pieces) + b"]"
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            if _grows(field := getattr(value, name)) and field != []:
                setattr(value, name, msgspec.Raw(encoded(field)))
    return msgspec.json.encode(value)


def _grows(value: object) -> bool:
    return isinstance(value, list) or (
        isinstance(value, msgspec.Struct) and not value.__struct_config__.frozen
    )


def _holds_growing(values: list[Any]) -> bool:
    """Lists hold one kind of thing, or nothing in its place."""
    return _grows(next((value for value in values if value is not None), None))
