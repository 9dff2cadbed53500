"""``models``, ``doctor`` and ``engine``."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from tests.cli.conftest import Run
from tfm.tui.commands import checks


@pytest.fixture
def local(tmp_path: Path, tiny_translator: Path) -> Path:
    """A checkpoint under the test's home."""
    folder = tmp_path / "home" / "checkpoints" / "letters"
    shutil.copytree(tiny_translator, folder)
    return folder


def test_models_are_listed(run: Run, local: Path) -> None:
    (local.parent / "broken").mkdir()
    (local.parent / "broken" / "config.json").write_text("{")
    listed = {record["name"]: record for record in run("models", "--json").records}
    assert listed["letters"]["family"] == "encoder-decoder"
    assert listed["letters"]["source"] == "local"
    assert listed["broken"]["problem"]
    table = run("models").out.splitlines()
    assert table[0].split() == ["MODEL", "FAMILY", "PARAMETERS", "SIZE", "FROM", "WHAT"]
    assert any(line.startswith("letters") and "tiny encoder-decoder" in line for line in table)
    assert any(line.startswith("broken") and "cannot be used: " in line for line in table)


def test_a_checkpoint_is_verified(run: Run, local: Path) -> None:
    good = run("models", "--verify", "letters")
    assert (good.status, good.err) == (0, "")
    assert "every file is as its manifest says" in good.out
    weights = local / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1  # one flipped bit
    weights.write_bytes(data)
    bad = run("models", "--verify", "letters", "--json")
    assert bad.status == 1
    assert "SHA-256" in str(bad.records[0]["problem"])
    assert run("models", "--verify", "leters").status == 2


def test_the_engine_answers_on_stdio(spawn: Run) -> None:
    ran = spawn("engine", stdin=b'{"op":"hello","id":1,"version":1}\n{"op":"shutdown","id":2}\n')
    assert ran.status == 0, ran.err
    assert ran.records[0]["event"] == "welcome"


def test_doctor_looks_at_everything(run: Run, local: Path) -> None:
    records = run("doctor", "--json").records
    found = {str(record["check"]): record for record in records}
    for name in ("python", "torch", "devices", "threads", "processor", "memory", "terminal", "TFM_HOME"):
        assert found[name]["state"] in ("ok", "advice"), found[name]
    assert "ready" in str(found["engine"]["value"])
    for record in records:
        assert (record["state"] == "ok") == (record["change"] == "")


def advice(subject: str, found: list[checks.Check]) -> checks.Check:
    return next(check for check in found if check.check == subject)


def test_doctor_says_what_to_change(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert "set TERM=" in advice("terminal", list(checks.terminal())).change
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("COLORTERM", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "COLORTERM=truecolor" in advice("colours", list(checks.terminal())).change
    monkeypatch.setenv("TMUX", "/tmp/socket")
    monkeypatch.setenv("SSH_CONNECTION", "1 2 3 4")
    monkeypatch.delenv("TEXTUAL_FPS", raising=False)
    between = list(checks.terminal())
    assert "escape-time" in advice("multiplexer", between).change
    assert "TEXTUAL_FPS" in advice("connection", between).change
    monkeypatch.setattr(checks, "_cpu_share", lambda: 1.5)
    assert "OMP_NUM_THREADS=" in advice("threads", list(checks._threads(64))).change
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("TFM_HOME", str(file / "below"))
    place = advice("TFM_HOME", list(checks.home()))
    assert (place.state, place.change) == ("problem", "set TFM_HOME to a folder you can write")


def test_a_damaged_bundled_model_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_translator: Path
) -> None:
    bundled = tmp_path / "bundled"
    monkeypatch.setattr("tfm.core.catalog.bundled_folder", lambda: bundled)
    [none] = checks.checkpoints()
    assert none.state == "problem"
    shutil.copytree(tiny_translator, bundled / "letters")
    [whole] = checks.checkpoints()
    assert whole.state == "ok"
    (bundled / "letters" / "card.md").write_text("another")
    [damaged] = checks.checkpoints()
    assert damaged.state == "problem" and "card.md" in damaged.value


def test_an_engine_that_does_not_start_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfm.tui.client.LOCAL_ENGINE", ("false",))
    [check] = checks.engine()
    assert check.state == "problem"
    assert msgspec.structs.asdict(check)["change"]
