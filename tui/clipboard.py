"""Copying through the terminal (OSC 52), which works over SSH; how much it takes is the terminal's own."""

from __future__ import annotations

from typing import Any

from textual.app import App

SAFE = 74_994  # bytes: as base64 just under the 100,000 that many terminals take


def copy(app: App[Any], text: str, what: str) -> None:
    """Offer a text to the terminal, and say so."""
    if not text.strip():
        app.notify("There is nothing to copy yet.", markup=False)
        return
    app.copy_to_clipboard(text)
    size = len(text.encode("utf-8", "replace"))
    if size > SAFE:
        sentence = f"Copied {what}, {size:,} bytes: many terminals take no more than {SAFE:,} (OSC 52). "
        app.notify(sentence + "Export writes it to a file.", severity="warning", markup=False, timeout=10)
    else:
        app.notify(f"Copied {what}, where the terminal allows it (OSC 52).", markup=False)
