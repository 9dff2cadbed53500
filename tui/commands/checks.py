"""What ``doctor`` looks at: one small function a subject, each yielding what it found and what to change."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from tfm.tui.commands.output import human_bytes

FLAGS = (
    "amx_bf16",
    "amx_int8",
    "avx512_bf16",
    "avx512_vnni",
    "avx512f",
    "avx2",
    "asimd",
    "bf16",
    "i8mm",
    "sve",
)
ENGINE_PATIENCE = 120.0  # seconds; a cold disk can take half a minute to read torch
LOW_DISK = 5e9  # bytes; a few dozen checkpoints of a small model
LOW_MEMORY = 1.5e9  # bytes


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One finding. ``problem``: something will not work; ``advice``: it works, and could be better."""

    check: str
    value: str
    state: Literal["ok", "advice", "problem"] = "ok"
    change: str = ""  # what to change, where there is something


def all_checks() -> Iterator[Check]:
    subjects: tuple[Callable[[], Iterator[Check]], ...] = (
        python_and_torch,
        processor,
        memory,
        terminal,
        home,
        own_files,
        checkpoints,
        engine,
    )
    for subject in subjects:
        yield from subject()


def python_and_torch() -> Iterator[Check]:
    yield Check(
        check="python", value=f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    )
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check(
            check="torch",
            value=f"cannot be imported: {error}",
            state="problem",
            change="install it: pip install torch",
        )
        return
    yield Check(check="torch", value=str(torch.__version__))
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    yield from _devices(names, bool(torch.version.cuda))
    yield from _threads(torch.get_num_threads())


def _devices(names: list[str], built_for_cuda: bool) -> Iterator[Check]:
    if names:
        yield Check(check="devices", value="cpu, " + ", ".join(names))
    elif shutil.which("nvidia-smi") is None:
        yield Check(check="devices", value="cpu")
    else:
        why = "update the NVIDIA driver" if built_for_cuda else "install a torch that is built for CUDA"
        yield Check(
            check="devices",
            value="cpu; there is an NVIDIA driver but torch sees no GPU",
            state="advice",
            change=why,
        )


def _threads(n_threads: int) -> Iterator[Check]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = _cpu_share()
    cores = min(usable, max(1, round(share))) if share else usable
    limit = f", a container limit of {share:g}" if share else ""
    value = f"torch uses {n_threads} threads; {usable} processors{limit}"
    if n_threads > cores:
        yield Check(
            check="threads",
            value=value,
            state="advice",
            change=f"set OMP_NUM_THREADS={cores}: more threads than processors slow torch down",
        )
    else:
        yield Check(check="threads", value=value)


def processor() -> Iterator[Check]:
    name, found = platform.processor() or platform.machine(), set[str]()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip().lower() in ("flags", "features"):
            found |= set(value.split())
            break
    fast = [flag for flag in FLAGS if flag in found]
    yield Check(
        check="processor", value=f"{name}; {', '.join(fast) if fast else 'no wide vector units known'}"
    )


def memory() -> Iterator[Check]:
    import psutil

    box = psutil.virtual_memory()
    total, free = float(box.total), float(box.available)
    limit = _read_number("/sys/fs/cgroup/memory.max")
    used = _read_number("/sys/fs/cgroup/memory.current")
    if limit is not None and limit < total:
        total, free = limit, min(free, limit - (used or 0.0))
    value = f"{human_bytes(free)} free of {human_bytes(total)}"
    if free < LOW_MEMORY:
        yield Check(
            check="memory",
            value=value,
            state="advice",
            change="end other programs, or take small models: torch alone needs about 0.5 GB",
        )
    else:
        yield Check(check="memory", value=value)


def terminal() -> Iterator[Check]:
    term, colours = os.environ.get("TERM", ""), os.environ.get("COLORTERM", "")
    shown = "a terminal" if sys.stdout.isatty() else "no terminal (output is piped)"
    value = f"{shown}, TERM={term or '(unset)'}"
    if term in ("", "dumb", "unknown"):
        yield Check(
            check="terminal",
            value=value,
            state="advice",
            change="the app cannot draw here: set TERM=xterm-256color; the commands work",
        )
    else:
        yield Check(check="terminal", value=value)
    if os.environ.get("NO_COLOR"):
        yield Check(check="colours", value="none, as NO_COLOR asks")
    elif colours in ("truecolor", "24bit"):
        yield Check(check="colours", value="16 million")
    else:
        yield Check(
            check="colours",
            value="256 or fewer",
            state="advice",
            change="if your terminal can do more, set COLORTERM=truecolor",
        )
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    if encoding == "utf8":
        yield Check(check="unicode", value="UTF-8")
    else:
        yield Check(check="unicode", value=encoding or "unknown", state="advice", change="set LANG=C.UTF-8")
    columns, rows = shutil.get_terminal_size()
    small = sys.stdout.isatty() and (columns < 80 or rows < 24)
    yield Check(
        check="size",
        value=f"{columns}x{rows}",
        state="advice" if small else "ok",
        change="make the window at least 80x24" if small else "",
    )
    yield from _between()


def _between() -> Iterator[Check]:
    """What stands between the program and the screen."""
    measurable = sys.stdin.isatty() and sys.stdout.isatty()
    if os.environ.get("TMUX"):
        yield Check(
            check="multiplexer",
            value="tmux",
            state="advice",
            change="in tmux.conf: set -s escape-time 10, and set -g default-terminal tmux-256color",
        )
    elif os.environ.get("STY"):
        yield Check(
            check="multiplexer",
            value="GNU screen",
            state="advice",
            change="tmux shows more colours and keys than screen does",
        )
    if os.environ.get("SSH_CONNECTION"):
        fps = os.environ.get("TEXTUAL_FPS")
        known = fps or measurable  # else the app will find out by itself, and a limit is safer
        yield Check(
            check="connection",
            value=f"ssh{f', TEXTUAL_FPS={fps}' if fps else ''}",
            state="ok" if known else "advice",
            change="" if known else "run doctor in the terminal itself, or set TEXTUAL_FPS=15 to send less",
        )
    if measurable:
        yield _line()


def _line() -> Check:
    """How long the terminal takes to answer, and what the app makes of it."""
    from tfm.tui.pace import DEFAULT_FPS, Pace, round_trip

    took = round_trip(sys.stdin.fileno(), sys.stdout.fileno())
    fps = os.environ.get("TEXTUAL_FPS", "")
    asked = int(fps) if fps.isdigit() and int(fps) > 0 else DEFAULT_FPS
    limit = f" (TEXTUAL_FPS={asked})" if fps.isdigit() else ""
    if took is None:
        value = f"it does not say how far away it is: up to {asked} frames a second{limit}"
        return Check(check="line", value=value)
    pace = Pace(1 / asked)
    pace.ask(0.0)
    pace.answer(took)
    frames = 1 / pace.interval(took)
    return Check(
        check="line", value=f"answers in {took * 1000:.0f} ms: up to {frames:.0f} frames a second{limit}"
    )


def home() -> Iterator[Check]:
    from tfm.core.catalog import checkpoint_home

    place = checkpoint_home()
    there = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
    change = "set TFM_HOME to a folder you can write"
    try:
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free
    except OSError as error:
        yield Check(
            check="TFM_HOME",
            value=f"{place} cannot be written: {error.strerror}",
            state="problem",
            change=change,
        )
        return
    value = f"{place}, {human_bytes(free)} free"
    if free < LOW_DISK:
        yield Check(check="TFM_HOME", value=value, state="advice", change=f"{change} on a larger disk")
    else:
        yield Check(check="TFM_HOME", value=value)


def own_files() -> Iterator[Check]:
    """The user's own keys and settings, where there are any."""
    from tfm.tui.keys_file import keys_path, read_keys
    from tfm.tui.settings import SettingsFile

    path = keys_path()
    keys, problems = read_keys(path)
    for sentence in problems:
        yield Check(check="keys", value=sentence, state="problem", change=f"correct it in {path}")
    if path.exists() and not problems:
        yield Check(check="keys", value=f"{path}, {len(keys.changed)} changed")
    settings = SettingsFile()
    for sentence in settings.problems:
        change = "correct it, or let the app put it aside when it saves"
        yield Check(check="settings", value=sentence, state="advice", change=change)


def checkpoints() -> Iterator[Check]:
    from tfm.core.catalog import list_models
    from tfm.core.checkpoint import verify_checkpoint

    bundled = [info for info in list_models() if info.source == "bundled"]
    if not bundled:
        yield Check(
            check="bundled models",
            value="none",
            state="problem",
            change="the installation is incomplete: install the package again",
        )
    for info in bundled:
        problem = info.problem
        if not problem:
            try:
                verify_checkpoint(Path(info.path))
            except ValueError as error:
                problem = str(error)
        if problem:
            yield Check(
                check=f"model {info.name}",
                value=problem,
                state="problem",
                change="its files are damaged: install the package again",
            )
        else:
            yield Check(check=f"model {info.name}", value=f"whole, {human_bytes(info.size_bytes)}")


def engine() -> Iterator[Check]:
    """Start the engine as the app does and wait until it says that it is warm."""
    from tfm.tui.client import LOCAL_ENGINE

    change = "run `tfm-tui engine` by hand and read what it says"
    start = time.monotonic()
    process = subprocess.Popen(
        LOCAL_ENGINE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
    )
    try:
        device = _until_warm(process, start + ENGINE_PATIENCE)
        seconds = time.monotonic() - start
    finally:
        process.kill()
        process.communicate()
    if device is None:
        yield Check(check="engine", value="does not start", state="problem", change=change)
    else:
        yield Check(check="engine", value=f"ready {seconds:.1f} s after its start, on {device}")


def _until_warm(process: subprocess.Popen[bytes], deadline: float) -> str | None:
    """The device that the engine names once torch is loaded, or None where it ends or stays silent."""
    import threading

    from tfm.core.engine import protocol

    assert process.stdin and process.stdout
    watchdog = threading.Timer(deadline - time.monotonic(), process.kill)
    watchdog.daemon = True
    watchdog.start()
    try:
        process.stdin.write(protocol.encode(protocol.Hello(id=1)))
        process.stdin.flush()
        for line in process.stdout:
            event = json.loads(line)
            if event.get("event") == "welcome" and event.get("device"):
                return str(event["device"])
            if event.get("event") == "error":
                return None
        return None
    except (ValueError, BrokenPipeError):
        return None
    finally:
        watchdog.cancel()


def _cpu_share() -> float | None:
    """Processors' worth of time that the container may use, or None where there is no limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _read_number(path: str) -> float | None:
    try:
        return float(Path(path).read_text())
    except (OSError, ValueError):  # not there, or "max"
        return None
