"""Who may import what, shown on fresh interpreters: users feel a slow or colliding import at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def loaded_by(statement: str, cwd: Path | None = None, **env: str) -> set[str]:
    """Top-level modules in sys.modules after a statement ran in a fresh interpreter."""
    code = f"import sys; {statement}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd or ROOT.parent,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import tfm.tui.app",
        "import tfm.tui.cli",
        "import tfm.core.engine.protocol",
        "import tfm.core.catalog",
        "import tfm.train.run_dir",
        "import tfm.train.config",
        "import tfm.train.events",
        "import tfm.train.launch",
    ],
)
def test_loads_no_torch(statement: str) -> None:
    assert not loaded_by(statement) & {"torch", "tokenizers", "safetensors", "sacrebleu"}


def test_every_screen_and_widget_loads_no_torch() -> None:
    """The app imports its screens by name when they are first opened, which no static check sees."""
    statement = (
        "import importlib, pkgutil, tfm.tui.screens, tfm.tui.widgets; "
        "[importlib.import_module(f'{package.__name__}.{module.name}') "
        "for package in (tfm.tui.screens, tfm.tui.widgets) "
        "for module in pkgutil.iter_modules(package.__path__)]"
    )
    loaded = loaded_by(statement)
    assert "textual" in loaded
    assert not loaded & {"torch", "tokenizers", "safetensors", "sacrebleu"}


def test_plain_commands_load_no_textual() -> None:
    """`tfm-tui translate` in a pipe pays for no app."""
    assert "textual" not in loaded_by("import tfm.tui.cli")


def test_core_and_train_load_no_terminal_and_no_command_line() -> None:
    statement = "import tfm.core, tfm.core.generate, tfm.core.search, tfm.core.checkpoint, tfm.train.loop"
    assert not loaded_by(statement) & {"textual", "click", "rich"}


def test_a_working_directory_with_our_folder_names_does_no_harm(tmp_path: Path) -> None:
    for name in ("train.py", "core.py", "tui.py"):
        (tmp_path / name).write_text("raise SystemExit('a file of the working directory was imported')\n")
    (tmp_path / "tfm").mkdir()
    assert "tfm" in loaded_by("import tfm.train.config, tfm.core.config, tfm.tui.cli", cwd=tmp_path)


def test_safe_path_hides_even_a_package_called_tfm(tmp_path: Path) -> None:
    """Child processes start with PYTHONSAFEPATH: nothing of the working directory is importable."""
    (tmp_path / "tfm").mkdir()
    (tmp_path / "tfm" / "__init__.py").write_text("raise SystemExit('the wrong tfm')\n")
    (tmp_path / "train.py").write_text("raise SystemExit('the wrong train')\n")
    assert "tfm" in loaded_by("import tfm.train", cwd=tmp_path, PYTHONSAFEPATH="1")


def test_import_contracts_hold() -> None:
    """The contracts of [tool.importlinter] in pyproject.toml; `make imports` shows the same."""
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
