"""How a checkpoint looks in the list from which one is chosen."""

from __future__ import annotations

from textual.content import Content

from tfm.core.engine.protocol import ModelInfo
from tfm.tui.safe_text import safe_text


def describe(model: ModelInfo) -> tuple[str, Content]:
    """Its name and one line about it."""
    parts = [f"{safe_text(model.name):<22}"]
    if model.problem:
        return model.name, Content(parts[0]) + Content.styled(safe_text(model.problem), "$error")
    about = [f"{model.n_parameters / 1e6:.1f} M", " → ".join(safe_text(name) for name in model.languages)]
    about += [f"{name} {value:.1f}" for name, value in list(model.scores.items())[:2]]
    about.append(model.source)
    text = " · ".join(part for part in about if part)
    return model.name, Content(parts[0]) + Content.styled(safe_text(text), "$quiet")
