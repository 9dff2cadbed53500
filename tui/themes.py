"""The app's own colours, dark and light: one accent for what is live, the rest steps back."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="tfm-dark",
    primary="#e5b567",
    secondary="#7fa7d1",
    accent="#e5b567",
    foreground="#d8d6cf",
    background="#14161a",
    surface="#14161a",
    panel="#1c1f25",
    success="#8fb573",
    warning="#e5b567",
    error="#e07a70",
    dark=True,
    variables={
        "quiet": "#8a8d93",
        "faint": "#686c75",
        "line": "#3a3e46",
        "footer-key-foreground": "#e5b567",
        "input-selection-background": "#e5b567 30%",
        "block-cursor-foreground": "#14161a",
        "block-cursor-background": "#e5b567",
    },
)

LIGHT = Theme(
    name="tfm-light",
    primary="#8a5a00",
    secondary="#2f5f93",
    accent="#8a5a00",
    foreground="#2a2b2e",
    background="#faf8f3",
    surface="#faf8f3",
    panel="#f0ede5",
    success="#3f6f24",
    warning="#8a5a00",
    error="#a8362c",
    dark=False,
    variables={
        "quiet": "#66686d",
        "faint": "#909298",
        "line": "#cfcbc0",
        "footer-key-foreground": "#8a5a00",
        "input-selection-background": "#8a5a00 25%",
        "block-cursor-foreground": "#faf8f3",
        "block-cursor-background": "#8a5a00",
    },
)

ALL = (DARK, LIGHT)
