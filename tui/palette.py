"""What the names of span styles look like in the theme of the moment.

Spans could be styled by component classes in the style sheet; resolving those for every widget is a
quarter of the time to the first paint, so the few looks there are stand here.
"""

from __future__ import annotations

from collections.abc import Mapping

from rich.style import Style
from textual.color import Color

_LOOKS: dict[str, tuple[str, str]] = {  # name: theme variable, text style
    "dim": ("quiet", ""),
    "faint": ("faint", ""),
    "strong": ("foreground", "bold"),
    "live": ("accent", "bold"),
    "here": ("accent", "bold underline"),
    "second": ("secondary", ""),
    "bad": ("error", ""),
    "key": ("foreground", "bold"),
    "mark": ("accent", "underline"),
    "gone": ("faint", "strike"),
    "line": ("line", ""),
    "found": ("secondary", "underline"),
    "found_here": ("secondary", "bold reverse"),
    **{  # lines of several runs in one picture
        f"run{number}": (variable, "")
        for number, variable in enumerate(
            ("accent", "secondary", "success", "error", "foreground", "quiet"), start=1
        )
    },
}


_UNSURE = {  # by what the terminal can show; blue to orange, which no colour-blindness confuses
    "dark": ("#7cc4ee", "#e69f00", "bold underline #ff7a45"),
    "light": ("#0b62a0", "#9a5b00", "bold underline #a83200"),
    "few": ("cyan", "yellow", "bold underline magenta"),
    "none": ("underline", "bold underline", "reverse"),
}


def unsure(terminal: str) -> dict[str, Style]:
    """The looks of tokens that the model was less and less sure of."""
    return {f"sure{step}": Style.parse(text) for step, text in enumerate(_UNSURE[terminal], start=1)}


def palette(variables: Mapping[str, str]) -> dict[str, Style]:
    """The style of each look, from a theme's variables."""
    styles = {
        name: Style.parse(text) + Style(color=Color.parse(variables[variable]).rich_color)
        for name, (variable, text) in _LOOKS.items()
    }
    if (
        Color.parse(variables["background"]).ansi is not None
    ):  # the terminal's own colours: it may have no grey
        for name in ("faint", "line", "gone"):
            styles[name] += Style(dim=True)
        styles["selected"] = Style(reverse=True, bold=True)
        styles[""] = Style.null()
        return styles
    accent, background = Color.parse(variables["accent"]), Color.parse(variables["background"])
    styles["selected"] = Style(color=background.rich_color, bgcolor=accent.rich_color, bold=True)
    styles[""] = Style.null()
    return styles
