"""What is copied goes to the terminal (OSC 52) and, inside tmux, through tmux."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tfm.tui import clipboard

from .terminal import Terminal

TEXT = "Ein Mann 한국어 \x1b]52;c;!\x07\n"


def stub(folder: Path, script: str) -> None:
    """A program called tmux that is found first."""
    program = folder / "tmux"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("script", "calls", "taken"),
    [
        ("cat >> {out}/text; echo \"$@\" >> {out}/calls", ["load-buffer -w -"], True),
        ("cat > {out}/text; echo \"$@\" >> {out}/calls; test $# = 2",
         ["load-buffer -w -", "load-buffer -"], True),
        ("echo \"$@\" >> {out}/calls; exit 1", ["load-buffer -w -", "load-buffer -"], False),
    ],
    ids=["takes it", "is older than 3.2", "does not take it"],
)  # fmt: skip
async def test_tmux_is_given_the_text(
    script: str, calls: list[str], taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(tmp_path, script.format(out=tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert await clipboard.into_tmux(TEXT) is taken
    assert (tmp_path / "calls").read_text().splitlines() == calls
    if taken:
        assert (tmp_path / "text").read_text() == TEXT


async def test_no_tmux_and_one_that_hangs_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not await clipboard.into_tmux(TEXT)
    stub(tmp_path, "exec /bin/sleep 600")
    monkeypatch.setattr(clipboard, "PATIENCE", 0.1)
    assert not await clipboard.into_tmux(TEXT)


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
async def test_the_real_tmux_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ["tmux", "-f", "/dev/null", "-S", str(tmp_path / "socket")]
    subprocess.run([*server, "new-session", "-d", "sleep 60"], check=True)
    try:
        monkeypatch.setenv("TMUX", f"{tmp_path / 'socket'},1,0")
        assert clipboard.inside_tmux() and await clipboard.into_tmux("Ein Mann 한국어")
        shown = subprocess.run([*server, "show-buffer"], check=True, capture_output=True, text=True).stdout
        assert shown == "Ein Mann 한국어"
    finally:
        subprocess.run([*server, "kill-server"], check=False)


def test_a_copied_turn_reaches_the_terminal_and_tmux(tmp_path: Path) -> None:
    stub(tmp_path, f"cat > {tmp_path}/text")
    path = f"{tmp_path}:{os.environ['PATH']}"
    with Terminal(environment={"TMUX": "somewhere,1,0", "PATH": path}) as terminal:
        terminal.wait_for("· cpu")
        terminal.type("A dog runs.")
        terminal.press("enter")
        terminal.wait_for("again")
        terminal.press("tab")
        terminal.type("y")
        terminal.wait_for("Copied the translation,")
        given = tmp_path / "text"
        terminal.wait_until(lambda _: given.exists() and given.stat().st_size > 0, "tmux")
        text = given.read_text()
        assert base64.b64encode(text.encode()) in terminal.raw
