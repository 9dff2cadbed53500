"""From launch to something to look at, in a real pseudo-terminal; and the plain commands' start."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pexpect
import pyte

PROGRAM = str(Path(sys.executable).with_name("tfm-tui"))
COLUMNS, ROWS = 80, 24
TIMES = 7
ON_SCREEN = "Translate"  # the first mode's name, in the top line


def run() -> None:
    rows: list[tuple[str, Callable[[], float]]] = [
        ("tfm-tui, until the screen stands", app),
        ("tfm-tui --version", lambda: command(PROGRAM, "--version")),
        ("tfm-tui models", lambda: command(PROGRAM, "models")),
        ("import tfm.tui.app", lambda: command(sys.executable, "-c", "import tfm.tui.app")),
        ("import textual.app alone", lambda: command(sys.executable, "-c", "import textual.app")),
        ("python -c pass", lambda: command(sys.executable, "-c", "pass")),
    ]
    print(f"| what | median of {TIMES} | fastest | slowest |")
    print("|---|---:|---:|---:|")
    for what, measure in rows:
        measure()  # once to warm the disk cache
        seconds = [measure() for _ in range(TIMES)]
        figures = (statistics.median(seconds), min(seconds), max(seconds))
        print(f"| {what} | {' | '.join(f'{figure * 1000:,.0f} ms' for figure in figures)} |", flush=True)


def command(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run(arguments, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    return time.perf_counter() - began


def app() -> float:
    """Seconds from exec until a terminal emulator shows the first mode's name."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    env = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    began = time.perf_counter()
    child = pexpect.spawn(PROGRAM, dimensions=(ROWS, COLUMNS), env=env, timeout=30)
    try:
        while not any(ON_SCREEN in line for line in screen.display):
            stream.feed(child.read_nonblocking(1 << 16, timeout=30))
        return time.perf_counter() - began
    finally:
        child.sendcontrol("q")
        child.expect(pexpect.EOF)
        child.close(force=True)
