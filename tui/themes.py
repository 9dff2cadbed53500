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
        "faint": "#7f8187",
        "line": "#cfcbc0",
        "footer-key-foreground": "#8a5a00",
        "input-selection-background": "#8a5a00 25%",
        "block-cursor-foreground": "#faf8f3",
        "block-cursor-background": "#8a5a00",
    },
)

CONTRAST = Theme(
    name="tfm-contrast",
    primary="#ffd75f",
    secondary="#87d7ff",
    accent="#ffd75f",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#000000",
    success="#87ff87",
    warning="#ffd75f",
    error="#ff9f9f",
    dark=True,
    variables={
        "quiet": "#e0e0e0",
        "faint": "#bcbcbc",
        "line": "#a0a0a0",
        "footer-key-foreground": "#ffd75f",
        "input-selection-background": "#ffd75f 40%",
        "block-cursor-foreground": "#000000",
        "block-cursor-background": "#ffd75f",
    },
)

CONTRAST_LIGHT = Theme(
    name="tfm-contrast-light",
    primary="#0000a0",
    secondary="#004f2f",
    accent="#0000a0",
    foreground="#000000",
    background="#ffffff",
    surface="#ffffff",
    panel="#ffffff",
    success="#004f00",
    warning="#5f3700",
    error="#8f0000",
    dark=False,
    variables={
        "quiet": "#262626",
        "faint": "#444444",
        "line": "#5f5f5f",
        "footer-key-foreground": "#0000a0",
        "input-selection-background": "#0000a0 30%",
        "block-cursor-foreground": "#ffffff",
        "block-cursor-background": "#0000a0",
    },
)

# The terminal's own sixteen colours, whatever they are there: for terminals that have no others, and for
# people who chose theirs with care. Borders and what is past take the colour of the text, which every
# palette can show on its background; they step back by being dim.
SIXTEEN = Theme(
    name="tfm-16",
    primary="ansi_yellow",
    secondary="ansi_cyan",
    accent="ansi_yellow",
    foreground="ansi_default",
    background="ansi_default",
    surface="ansi_default",
    panel="ansi_default",
    boost="ansi_default",
    success="ansi_green",
    warning="ansi_yellow",
    error="ansi_red",
    ansi=True,
    dark=True,
    variables={
        "quiet": "ansi_default",
        "faint": "ansi_default",
        "line": "ansi_default",
        "footer-key-foreground": "ansi_yellow",
        "ansi-background": "ansi_black",
        "ansi-foreground": "ansi_white",
        "border-blurred": "ansi_default",
        "block-cursor-foreground": "ansi_black",
        "block-cursor-background": "ansi_yellow",
        "input-cursor-background": "ansi_yellow",
        "input-cursor-foreground": "ansi_black",
        "input-cursor-text-style": "none",
        "input-selection-background": "ansi_blue",
        "input-selection-foreground": "ansi_white",
        "screen-selection-background": "ansi_blue",
        "screen-selection-foreground": "ansi_white",
    },
)

ALL = (DARK, LIGHT, CONTRAST, CONTRAST_LIGHT, SIXTEEN)
