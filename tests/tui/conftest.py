"""Tiny models with a chat template, and what every test of the app's modes does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

CHATML = (
    "{% for message in messages %}{{ '<s>' + message['role'] + '\n' + message['content'] | trim + '</s>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The app remembers things: not in the home of whoever runs the tests. It has been opened before."""
    monkeypatch.setenv("TFM_HOME", str(tmp_path))
    (tmp_path / "settings.json").write_text('{"welcomed": true}')
    monkeypatch.delenv(
        "TMUX", raising=False
    )  # what is copied is not for the buffers of whoever runs the tests


@pytest.fixture(scope="session")
def tiny_chatter(tiny_decoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder-only checkpoint of 128 positions that carries a template with system prompts."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-chatter"
    shutil.copytree(tiny_decoder, folder)
    (folder / "chat_template.jinja").write_text(CHATML, encoding="utf-8")
    return folder
