"""The app as a person meets it: start, keys, streams and what they cost, in a real pseudo-terminal.

Reports, and asserts nothing. The app is the real one. Where a row says "stand-in", a process that speaks the
engine's protocol writes made-up tokens at a set rate (:mod:`bench.stand_in`), because this machine computes
no thousands of tokens a second; in all other rows the engine is the real one with ``en-de``.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from bench.pseudo_terminal import COLUMNS, ROWS, PseudoTerminal

LAUNCHES = 7
KEYS = 120  # presses for each row of the latencies,
LONGEST = 11.0  # or as many as there is time for in so many seconds: a busy machine must not take all day
SYMBOLS = "¤§¶†‡µ¬¦©®±¿¡×÷ª¢£¥ðøþ"  # nothing else on the screen holds them
APP = (sys.executable, "-m", "tfm.tui.cli")
HERE = Path(__file__).parent
WITH_ENGINE = (sys.executable, str(HERE / "ui_app.py"))
LOCAL = (sys.executable, "-m", "tfm.tui.cli", "engine")
REAL = {"BENCH_MODEL": "en-de", "BENCH_BANNED": "2", "OMP_NUM_THREADS": "1"}
SENTENCE = "A man in a blue shirt is standing on a ladder cleaning a window."
BACKSPACE = "\x7f"


def stand_in(rate: float, tokens: int = 1 << 30) -> tuple[str, ...]:
    return (sys.executable, str(HERE / "stand_in.py"), "--rate", str(rate), "--tokens", str(tokens))


# --------------------------------------------------------------------------- the start
def starts() -> None:
    """Launch the app as it is installed, type while it loads its model."""
    paint, cpu, key, ready, sent, loading = [], [], [], [], [], []
    with PseudoTerminal(APP) as terminal:  # once before it counts: this writes the bytecode
        terminal.wait_for("Translate")
    whole = time.perf_counter()
    while len(paint) < LAUNCHES and (not paint or time.perf_counter() - whole < 3 * LONGEST):
        with PseudoTerminal(APP) as terminal:
            paint.append(terminal.wait_for("Translate") - terminal.began)
            cpu.append(terminal.cpu_seconds())
            sent.append(float(len(terminal.output)))
            draw, presses = random.Random(len(paint)), 0
            while not _loaded(terminal):
                latency = terminal.key_latency(SYMBOLS[presses % len(SYMBOLS)])
                if latency is not None:
                    if not presses:
                        key.append(time.perf_counter() - terminal.began)
                    elif not _loaded(terminal):
                        loading.append(latency)
                presses += 1
                terminal.send(BACKSPACE)
                terminal.read_for(draw.uniform(0.02, 0.06))
                if time.perf_counter() - terminal.began > 60:
                    break
            ready.append(time.perf_counter() - terminal.began)
    python = [_timed("pass") for _ in range(LAUNCHES)]
    print(f"{len(paint)} launches, {COLUMNS}x{ROWS}\n")
    print(f"{'':<52}{'median':>11}{'least':>11}{'most':>11}")
    print(_row("python -c pass", python))
    print(_row("launch to first paint", paint))
    print(_row("  after Python's own start (aim: 0.300)", [t - statistics.median(python) for t in paint]))
    print(_row("  processor time of the app until then", cpu))
    print(_row("launch to first key on the screen", key))
    print(_row("launch to model ready, keys being typed", ready))
    print(f"{'sent to the terminal by first paint':<52}{statistics.median(sent):>11,.0f} bytes\n")
    print(
        f"{'key to screen':<36}{'keys':>6}{'p50':>10}{'p99':>10}{'most':>10}{'app CPU':>9}{'to terminal':>14}"
    )
    print(_latencies("while a model loads", loading))


def _loaded(terminal: PseudoTerminal) -> bool:
    if terminal.shows("no model"):
        raise RuntimeError("the app could not load its model: tfm-tui doctor says why")
    return any(terminal.shows(f"· {device}") for device in ("cpu", "cuda", "mps", "none"))


def _timed(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


# --------------------------------------------------------------------------- keys while it streams
def streaming(name: str, engine: Sequence[str], environment: dict[str, str], lanes: int) -> None:
    """Type while all lanes are being written."""
    with PseudoTerminal((*WITH_ENGINE, *engine), {**environment, "BENCH_AGAIN": "1"}) as terminal:
        terminal.wait_until(lambda: _loaded(terminal), "the model")
        terminal.read_for(0.3)
        if lanes:
            source = "\n".join([SENTENCE] * lanes)
            terminal.send(f"\x1b[200~{source}\x1b[201~")
            terminal.read_for(0.5)
            terminal.send("\r")
            terminal.wait_for("tok/s")
            terminal.read_for(0.5)
        draw, latencies = random.Random(0), []
        began, cpu, sent, missed = time.perf_counter(), terminal.cpu_seconds(), len(terminal.output), 0
        for press in range(KEYS):
            if time.perf_counter() - began > LONGEST:
                break
            latency = terminal.key_latency(SYMBOLS[press % len(SYMBOLS)])
            missed += latency is None
            latencies += [latency] if latency is not None else []
            terminal.send(BACKSPACE)
            terminal.read_for(draw.uniform(0.03, 0.09))
        seconds = time.perf_counter() - began
        used = (terminal.cpu_seconds() - cpu) / seconds
        rate = (len(terminal.output) - sent) / seconds
        print(_latencies(name, latencies, f"{used:>9.0%}{rate / 1000:>9.1f} kB/s"))
        if missed:
            print(f"  {missed} keys were not on the screen within 5 s")


# --------------------------------------------------------------------------- bytes
def bytes_a_token(
    name: str, engine: Sequence[str], environment: dict[str, str], tokens: int, synchronized: bool = False
) -> None:
    """One lane, nothing typed: all that is sent from Enter to the end, figures included."""
    with PseudoTerminal((*WITH_ENGINE, *engine), environment, synchronized=synchronized) as terminal:
        terminal.wait_until(lambda: _loaded(terminal), "the model")
        terminal.send(SENTENCE)
        terminal.read_for(0.5)
        before, began = len(terminal.output), time.perf_counter()
        terminal.send("\r")
        terminal.wait_for("stop")
        terminal.wait_for("again")  # the key line at the end
        terminal.read_for(0.7)
        sent, seconds = len(terminal.output) - before, time.perf_counter() - began - 0.7
        print(f"{name:<52}{sent / tokens:>11.1f}{sent:>11,}{tokens / seconds:>10,.0f} tok/s")


def run() -> None:
    print(f"textual {version('textual')}, rich {version('rich')}\n")
    starts()
    streaming("nothing going on", LOCAL, REAL, 0)
    streaming("1 lane, full speed", LOCAL, REAL, 1)
    streaming("64 lanes, full speed", LOCAL, REAL, 64)
    streaming("1 lane, stand-in 500 tok/s", stand_in(500), {}, 1)
    streaming("64 lanes, stand-in 5,000 tok/s", stand_in(5000), {}, 64)
    print(f"\n{'sent to the terminal, translate, 1 lane':<52}{'a token':>11}{'in all':>11}")
    bytes_a_token("stand-in, 150 tokens at 30 a second (aim: 60)", stand_in(30, 150), {}, 150)
    bytes_a_token("the same, frames synchronized", stand_in(30, 150), {}, 150, synchronized=True)
    bytes_a_token("en-de, 256 tokens at full speed", LOCAL, REAL, 256)


def _row(name: str, values: Sequence[float]) -> str:
    if not values:
        return f"{name:<52}{'not seen':>11}"
    marks = (statistics.median(values), min(values), max(values))
    return f"{name:<52}" + "".join(f"{value:>9.3f} s" for value in marks)


def _latencies(name: str, values: Sequence[float], rest: str = "") -> str:
    if not values:
        return f"{name:<36}{0:>6}"
    order = sorted(values)
    marks = (statistics.median(order), order[min(len(order) - 1, int(len(order) * 0.99))], order[-1])
    return f"{name:<36}{len(order):>6}" + "".join(f"{value * 1000:>7.1f} ms" for value in marks) + rest
