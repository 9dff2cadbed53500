"""`make` sets up once, says in a sentence what a machine lacks, and does nothing the second time."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the Makefile needs to be there, in a folder of its own."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def make(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # not the options of the make that may have started these tests
    env = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return subprocess.run(
        ["make", *arguments], cwd=checkout, env=env, capture_output=True, text=True, timeout=60
    )


def fake_python(folder: Path, *, version_is_fine: bool) -> Path:
    """Something that answers the Makefile's questions: old, or new and without venv."""
    path = folder / "python-of-another-kind"
    answer = 'case "$2" in *version_info*) exit 0 ;; esac; exit 1' if version_is_fine else "exit 1"
    path.write_text(f"#!/bin/sh\n{answer}\n")
    path.chmod(0o755)
    return path


def test_an_old_python_is_refused_with_a_sentence(checkout: Path) -> None:
    done = make(checkout, "run", f"PYTHON={fake_python(checkout, version_is_fine=False)}")
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_python_without_venv_is_refused_with_a_sentence(checkout: Path) -> None:
    done = make(checkout, "test", f"PYTHON={fake_python(checkout, version_is_fine=True)}")
    assert done.returncode != 0
    assert "has no venv module" in done.stderr
    assert not (checkout / ".venv").exists()


def test_no_python_at_all_is_told_with_a_sentence(checkout: Path) -> None:
    done = make(checkout, "run", "PYTHON=")
    assert done.returncode != 0
    assert "needs Python 3.11 or newer and found none" in done.stderr


def test_a_second_call_does_no_set_up(checkout: Path) -> None:
    stamp = checkout / ".venv" / ".ready"
    stamp.parent.mkdir()
    stamp.touch()
    assert "Nothing to be done" in make(checkout, "setup").stdout


def test_new_pins_are_installed(checkout: Path) -> None:
    stamp = checkout / ".venv" / ".ready"
    stamp.parent.mkdir()
    stamp.touch()
    os.utime(stamp, (0, 0))
    assert "pip install" in make(checkout, "--dry-run", "run").stdout


def test_help_lists_what_the_readme_names(checkout: Path) -> None:
    listed = make(checkout, "help").stdout
    for target in ("run", "test", "test-long", "check", "bench", "clean"):
        assert f"make {target} " in listed


def test_type_checkers_find_every_package() -> None:
    """The symlinks that only they read are relative, so a clone works anywhere."""
    links = {path.name: os.readlink(path) for path in (ROOT / ".typing" / "tfm").iterdir()}
    assert links == {name: f"../../{name}" for name in ("checkpoints", "core", "train", "tui")}
