"""Running commands: in this process, so that torch is loaded once, or as a person runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from tfm.tui.cli import main

EXECUTABLE = [sys.executable, "-m", "tfm.tui.cli"]


class Ran(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, object]]:
        """What ``--json`` printed."""
        return [msgspec.json.decode(line) for line in self.out.splitlines()]


Run = Callable[..., Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """``run("translate", "-m", name, stdin=b"...")`` in this process, with a home of the test's own."""
    monkeypatch.setenv("TFM_HOME", str(tmp_path / "home"))

    def call(*args: object, stdin: bytes = b"") -> Ran:
        given = tmp_path / "stdin"
        given.write_bytes(stdin)
        capfd.readouterr()
        with given.open() as file:
            monkeypatch.setattr(sys, "stdin", file)
            status = main([str(arg) for arg in args])
        return Ran(status, *capfd.readouterr())

    return call


@pytest.fixture
def spawn(tmp_path: Path) -> Run:
    """The same through a process of its own."""

    def call(*args: object, stdin: bytes = b"", **environment: str) -> Ran:
        done = subprocess.run(
            [*EXECUTABLE, *map(str, args)],
            input=stdin,
            capture_output=True,
            env={**os.environ, "TFM_HOME": str(tmp_path / "home"), **environment},
            timeout=120,
        )
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    return call
