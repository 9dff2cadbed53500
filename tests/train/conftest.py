"""What the tests of training share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.corpora import write_pairs


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a test trains or prepares goes into the home of whoever runs it."""
    monkeypatch.setenv("TFM_HOME", str(tmp_path / "home"))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder with fifty sentence pairs."""
    write_pairs(tmp_path / "data")
    return tmp_path / "data"
