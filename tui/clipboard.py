"""Copying through the terminal (OSC 52), which works over SSH; how much it takes is the terminal's own.

tmux as it comes swallows that sequence from the programs in it, so there the text also goes into tmux's own
buffer, and tmux hands it on to the terminal around it.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from textual.app import App

SAFE = 74_994  # bytes: as base64 just under the 100,000 that many terminals take
PATIENCE = 5.0  # seconds that tmux gets


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
        where = "into tmux's buffer, and " if inside_tmux() else ""
        app.notify(f"Copied {what}, {where}where the terminal allows it (OSC 52).", markup=False)


def inside_tmux() -> bool:
    return bool(os.environ.get("TMUX"))


async def into_tmux(text: str) -> bool:
    """Put a text into tmux's buffer and, from tmux 3.2 on, the terminal's clipboard. Did tmux take it?"""
    for options in (("-w",), ()):
        try:
            process = await asyncio.create_subprocess_exec(
                "tmux", "load-buffer", *options, "-", stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        except OSError:
            return False
        try:
            await asyncio.wait_for(process.communicate(text.encode("utf-8", "replace")), PATIENCE)
        except TimeoutError:
            process.kill()
            return False
        if process.returncode == 0:
            return True
    return False
