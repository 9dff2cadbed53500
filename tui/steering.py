"""What a person types to steer a run, as the arguments of its commands. Pure functions.

Each raises ValueError with one sentence that says what would have been right.
"""

from __future__ import annotations

import re
from typing import Any

_RATE = re.compile(r"(?P<value>\S+?)(?:\s+(?:for\s+)?(?P<steps>[\d,_]+)(?:\s*steps?)?)?")
RATE_HINT = (
    "1e-3 for 500: this rate for the next 500 steps. 1e-3: to the end. schedule: the schedule's again."
)


def parse_rate(text: str) -> dict[str, Any]:
    """``1e-3 for 500``, ``1e-3 500``, ``1e-3``, ``schedule`` as the arguments of ``learning_rate``."""
    text = text.strip()
    if text.lower() in ("schedule", "the schedule", "auto"):
        return {}
    found = _RATE.fullmatch(text)
    try:
        value = float(found["value"]) if found else None
    except ValueError:
        value = None
    if found is None or value is None:
        raise ValueError(f"{text!r} is no learning rate: type 1e-3 for 500, or 1e-3, or schedule.")
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"A learning rate lies between 0 and 1; {value:g} does not.")
    if found["steps"] is None:
        return {"value": value}
    steps = int(found["steps"].replace(",", "").replace("_", "") or 0)
    if steps < 1:
        raise ValueError("It must hold for at least 1 step.")
    return {"value": value, "steps": steps}


def parse_bookmark(text: str) -> str:
    """The trainer knows the full rule, and whether the name is taken."""
    name = text.strip()
    if not name or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or name.isdecimal():
        raise ValueError(
            "A bookmark's name is letters, digits, dots and dashes, and no number: such as good-1."
        )
    return name


def parse_changes(text: str) -> dict[str, str]:
    """``optim.learning_rate=1e-3 loop.max_steps=9000`` as overrides of a config."""
    changes: dict[str, str] = {}
    for part in text.split():
        key, equals, value = part.partition("=")
        if not equals or not value or "." not in key:
            raise ValueError(
                f"{part!r} is no change: type section.key=value, such as optim.learning_rate=1e-3."
            )
        changes[key] = value
    return changes


def parse_prompts(text: str) -> list[str]:
    """One prompt a line; blank lines say nothing."""
    return [line.strip() for line in text.splitlines() if line.strip()]
