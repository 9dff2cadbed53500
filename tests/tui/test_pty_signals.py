"""The app's terminal under all that can happen to it: signals, stops, sizes, its own end. In every mode."""

from __future__ import annotations

import fcntl
import json
import random
import signal
import struct
import sys
import termios
import time
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("pseudo-terminals", allow_module_level=True)
pytest.importorskip("pyte")

from tfm.tui import keymap

from .terminal import APP, Terminal

MODES = [mode.name for mode in keymap.MODES]
WRITTEN = ("translate", "chat", "fill")  # modes with a text that is kept as it is typed
FUNCTION_KEYS = {
    "f1": "\x1bOP",
    "f2": "\x1bOQ",
    "f3": "\x1bOR",
    "f4": "\x1bOS",
    "f5": "\x1b[15~",
    "f6": "\x1b[17~",
}
WITHIN = 3.0  # seconds to be gone


def app(home: Path, mode: str, **options: int) -> Terminal:
    """The app in a mode, with an ssh that never answers instead of an engine, so that it starts at once."""
    silent = home / "silent"
    silent.write_text("#!/bin/sh\nexec cat >/dev/null\n")
    silent.chmod(0o755)
    variables = {"TFM_HOME": str(home), "TFM_SSH": str(silent)}
    terminal = Terminal((*APP, "--host", "box"), cwd=home, environment=variables, **options)
    try:
        terminal.wait_for("connecting to box")
        terminal.type(FUNCTION_KEYS[next(m.key for m in keymap.MODES if m.name == mode)])
        settled(terminal)
    except BaseException:
        terminal.__exit__()
        raise
    return terminal


def resize(terminal: Terminal, columns: int, rows: int) -> None:
    fcntl.ioctl(terminal._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    terminal.screen.resize(rows, columns)


def wait_for_the_screen(terminal: Terminal, rows: list[str]) -> None:
    """Until the screen is painted as it was: all that a person would still see of it."""
    wanted = [row for row in rows if row.strip()]
    terminal.wait_until(lambda text: all(row.rstrip() in text for row in wanted), "the screen as it was")


def settled(terminal: Terminal) -> list[str]:
    """The screen once nothing more comes."""
    quiet = time.monotonic() + 0.5
    n_bytes = len(terminal.raw)
    while time.monotonic() < quiet:
        terminal.read(0.1)
        if len(terminal.raw) != n_bytes:
            n_bytes, quiet = len(terminal.raw), time.monotonic() + 0.5
    return list(terminal.screen.display)


def type_something(terminal: Terminal, mode: str) -> None:
    """A text where texts are typed, which nobody has sent or saved."""
    if mode in WRITTEN:
        terminal.type(" Zebra")
        terminal.wait_for("Zebra")


def assert_all_is_kept(home: Path, mode: str) -> None:
    if mode in WRITTEN:
        assert any("Zebra" in path.read_text() for path in home.rglob("*.json"))
    settings = home / "settings.json"
    assert mode == "translate" or json.loads(settings.read_text())["mode"] == mode


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_restores_the_terminal(number: int, mode: str, tmp_path: Path) -> None:
    with app(tmp_path, mode) as terminal:
        type_something(terminal, mode)
        terminal.process.send_signal(number)
        assert terminal.wait_to_end(WITHIN) == 128 + number
        assert terminal.restored()
    assert_all_is_kept(tmp_path, mode)


@pytest.mark.parametrize("mode", MODES)
def test_it_ends_when_its_terminal_is_gone(mode: str, tmp_path: Path) -> None:
    with app(tmp_path, mode) as terminal:
        type_something(terminal, mode)
        terminal.hang_up()
        assert terminal.process.wait(WITHIN) == 128 + signal.SIGHUP
    assert_all_is_kept(tmp_path, mode)


@pytest.mark.parametrize("stop", [signal.SIGTSTP, signal.SIGSTOP])
def test_it_paints_itself_again_when_it_is_continued(stop: int, tmp_path: Path) -> None:
    with app(tmp_path, "translate") as terminal:
        terminal.type("A man in a boat.")
        terminal.wait_for("A man in a boat.")
        before = settled(terminal)
        for _ in range(2):
            terminal.process.send_signal(stop)
            while _state_of(terminal.process.pid) != "T":
                terminal.read()
            if stop == signal.SIGTSTP:
                terminal.read(0.2)
                assert terminal.restored()  # the shell has its terminal
            terminal.screen.reset()
            terminal.process.send_signal(signal.SIGCONT)
            wait_for_the_screen(terminal, before)
        terminal.type(" And a dog")
        terminal.wait_for("A man in a boat. And a dog")  # each key once: nobody else reads them
        terminal.press("ctrl+q")
        assert terminal.wait_to_end() == 0
        assert terminal.restored()


def _state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


@pytest.mark.parametrize("mode", MODES)
def test_any_size_is_survived(mode: str, tmp_path: Path) -> None:
    """500 sizes in all modes together, down to one cell, with keys between them."""
    rng = random.Random(mode)
    with app(tmp_path, mode) as terminal:
        before = settled(terminal)
        for n in range(500 // len(MODES) + 1):
            resize(terminal, rng.choice([1, 2, 5, 30, 80, 200]), rng.choice([1, 2, 5, 24, 60]))
            if n % 10 == 0:
                terminal.press(rng.choice(["tab", "left", "down"]))
            terminal.read(0.01)
        resize(terminal, 80, 24)
        terminal.wait_until(lambda text: before[0].split()[-1] in text, "the first line")
        settled(terminal)
        assert terminal.process.poll() is None
        terminal.press("ctrl+q")
        assert terminal.wait_to_end() == 0
        assert terminal.restored()


def test_sizes_and_pastes_while_text_streams(tiny_translator: Path, tmp_path: Path) -> None:
    rng = random.Random(1)
    variables = {"TFM_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = (*APP, "--model", str(tiny_translator))
    with Terminal(command, cwd=tmp_path, environment=variables) as terminal:
        terminal.wait_for("tiny-translator · cpu")
        terminal.type("A boy sits on a woman.\n" * 40)  # ctrl+j: forty lanes, so that it takes a while
        terminal.press("enter")
        terminal.wait_for("Esc stop")
        for n in range(100):
            resize(terminal, rng.choice([1, 2, 5, 30, 80, 200]), rng.choice([1, 2, 5, 24, 60]))
            if n % 5 == 0:
                terminal.type(f"\x1b[200~pasted {n}\nand more\x1b[201~")
            terminal.read(0.01)
        resize(terminal, 100, 30)
        terminal.wait_for("tiny-translator")
        terminal.wait_until(lambda text: "^R again" in text, "the end of the translation")
        terminal.type("The end")
        terminal.wait_until(lambda text: "pasted 95" in text and "The end" in text, "all that was pasted")
        terminal.press("ctrl+q")
        assert terminal.wait_to_end() == 0
        assert terminal.restored()


def test_the_shell_gets_a_terminal_that_works(tmp_path: Path) -> None:
    """From a real shell: the app, ^Z, a command, fg, and out again."""
    with Terminal(("/bin/sh", "-i"), cwd=tmp_path, environment={"PS1": "sh> ", "ENV": ""}) as terminal:
        silent = tmp_path / "silent"
        silent.write_text("#!/bin/sh\nexec cat >/dev/null\n")
        silent.chmod(0o755)
        home = f"TFM_HOME={tmp_path} TFM_SSH={silent}"
        terminal.wait_for("sh>")
        terminal.type(f"{home} {' '.join(APP)} --host box\n")
        terminal.wait_for("connecting to box")
        terminal.type("A man")
        terminal.wait_for("A man")
        terminal.press("escape")
        terminal.wait_for("i edit")  # the input is left: in it, ^Z takes back what was typed
        terminal.type("\x1a")
        terminal.wait_until(lambda _: b"topped" in terminal.raw, "the shell")
        terminal.type("echo back $((6 * 7))\n")
        terminal.wait_for("back 42")
        terminal.type("fg\n")
        terminal.wait_until(lambda text: "A man" in text and "back 42" not in text, "the app")
        terminal.type("\x11")
        terminal.wait_until(lambda _: terminal.raw.count(b"\x1b[?1049l") == 2, "the shell again")
        terminal.type("echo out $((6 * 7))\n")
        terminal.wait_until(lambda _: b"out 42" in terminal.raw, "the shell's answer")
