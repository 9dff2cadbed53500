"""How sure the model was of each token, as a look. Pure functions.

The chance is the model's own, before any setting changed it, so a draw that the settings forced shows as the
guess it was. Four steps, because more cannot be told apart at a glance.
"""

from __future__ import annotations

import math

from tfm.tui.widgets.cells import Row

STEPS = ((0.7, "", "70% or more"), (0.4, "sure1", "40%"), (0.15, "sure2", "15%"), (0.0, "sure3", "less"))
"""From which chance on, the look, and what the legend calls it."""


def look(logprob: float | None) -> str:
    """The look of a token with this log-probability; one without a chance is plain."""
    if logprob is None or math.isnan(logprob):
        return ""
    chance = math.exp(min(logprob, 0.0))
    return next((style for least, style, _ in STEPS if chance >= least), STEPS[-1][1])


def legend(key: str) -> Row:
    """What the looks mean, and the key that takes them away."""
    steps = (span for _, style, name in STEPS for span in ((name, style), (" ", "")))
    return ((" sure of it: ", "dim"), *steps, (f"{key} ", "key"))
