"""models.pull: progress is told sparingly, a cancel ends it, what was fetched is described."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tfm.core.convert import pull as pulling
from tfm.core.engine.fetch import pull_model
from tfm.core.engine.protocol import Event, LoadProgress, ModelPulled, ModelsPull


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TFM_HOME", str(tmp_path))
    return tmp_path


def fetch_instead(monkeypatch: pytest.MonkeyPatch, source: Path) -> None:
    """A pull that copies a folder, telling of every thousandth."""

    def pull(name: str, destination: Path, *, progress: Callable[[str, int, int], None]) -> Path:
        for done in range(1001):
            progress("downloading", done, 1000)
        progress("importing", 0, 0)
        return Path(shutil.copytree(source, destination))

    monkeypatch.setattr(pulling, "pull", pull)


def test_it_tells_how_far_it_is_and_what_came(
    home: Path, tiny_decoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch_instead(monkeypatch, tiny_decoder)
    events: list[Event] = []
    pull_model(ModelsPull(id=3, name="someone/tiny"), events.append, lambda: False)
    *told, last = events
    fractions = [event.fraction for event in told if isinstance(event, LoadProgress)]
    assert len(fractions) == len(told) <= 103 and fractions[0] == 0 and max(fractions) >= 0.99
    assert isinstance(last, ModelPulled) and last.id == 3
    assert (last.info.name, last.info.family, last.info.problem) == ("tiny", "decoder-only", "")
    assert Path(last.info.path) == home / "checkpoints" / "tiny"


def test_a_cancelled_pull_ends_and_leaves_nothing(
    home: Path, tiny_decoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch_instead(monkeypatch, tiny_decoder)
    events: list[Event] = []
    pull_model(ModelsPull(id=3, name="tiny"), events.append, lambda: len(events) > 5)
    assert len(events) == 6 and not (home / "checkpoints").exists()
