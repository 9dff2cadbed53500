"""How long the app takes to show itself: measured on the real app in a real pseudo-terminal.

Reports, and asserts nothing. Times are from the launch of the process; "paint" is the first screen
that names its modes, "key" the first typed character on the screen, "engine" the model being ready.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import statistics
import struct
import subprocess
import sys
import termios
import time

COLUMNS, ROWS = 80, 24
LAUNCHES = 7
APP = [sys.executable, "-m", "tfm.tui.cli"]


def timed(code: str) -> float:
    """Seconds of a Python process that runs this, its start included."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def launch(arguments: list[str], patience: float) -> dict[str, float]:
    """One launch: seconds to each of the marks, and bytes sent by the first of them."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    began = time.perf_counter()
    process = subprocess.Popen(
        APP + arguments,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"},
        start_new_session=True,
    )
    os.close(slave)
    seen: dict[str, float] = {}
    output = b""
    end = began + patience
    while time.perf_counter() < end and "engine" not in seen:
        if not select.select([master], [], [], 0.01)[0]:
            continue
        try:
            output += os.read(master, 1 << 16)
        except OSError:
            break
        now = time.perf_counter() - began
        if "paint" not in seen and b"Translate" in output:
            seen["paint"], seen["bytes"] = now, len(output)
            typed_at = len(output)
            os.write(master, b"Q")
        elif "paint" in seen and "key" not in seen and b"Q" in output[typed_at:]:
            seen["key"] = now
        if b" \xc2\xb7 " in output and (b"fp32" in output or b"bf16" in output):
            seen["engine"] = now
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
    os.close(master)
    return seen


def row(name: str, values: list[float], unit: str = "s") -> str:
    if not values:
        return f"{name:<34}{'not seen':>12}"
    form = "{:>10,.0f} {}" if unit == "bytes" else "{:>10.3f} {}"
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{name:<34}" + "".join(form.format(value, unit) for value in (middle, low, high))


def run() -> None:
    launches = [launch([], 60.0) for _ in range(LAUNCHES)]
    print(f"{LAUNCHES} launches, {COLUMNS}x{ROWS}")
    print(f"{'':<34}{'median':>12}{'least':>12}{'most':>12}")
    print(row("python -c pass", [timed("pass") for _ in range(LAUNCHES)]))
    imports = "import tfm.tui.app, tfm.tui.screens.translate"
    print(row("python -c 'import tfm.tui.app'", [timed(imports) for _ in range(LAUNCHES)]))
    print(row("launch to first paint", [seen["paint"] for seen in launches if "paint" in seen]))
    print(row("launch to first key on screen", [seen["key"] for seen in launches if "key" in seen]))
    print(row("launch to model ready", [seen["engine"] for seen in launches if "engine" in seen]))
    print(row("sent to the terminal by first paint", [s["bytes"] for s in launches if "bytes" in s], "bytes"))
