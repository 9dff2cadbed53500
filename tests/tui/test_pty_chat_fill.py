"""Chat and Fill in a real pseudo-terminal with a real engine: what a person would see and type."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import psutil
import pytest

if sys.platform == "win32":
    pytest.skip("pseudo-terminals", allow_module_level=True)
pytest.importorskip("pyte")

from .terminal import APP, Terminal

CTRL = {key: chr(ord(key) - 96) for key in "egnrt"}


def app(mode: str, model: Path, home: Path, **environment: str) -> Terminal:
    """Opened in a mode; without one ("") in the mode that the model is good for."""
    variables = {"TFM_HOME": str(home), "OMP_NUM_THREADS": "1", **environment}
    command = (*APP, *(("--mode", mode) if mode else ()), "--model", str(model))
    return Terminal(command, cwd=home, environment=variables, columns=100, rows=60)  # random words are many


def test_a_chat_that_is_there_again_the_next_time(tiny_chatter: Path, tmp_path: Path) -> None:
    with app("chat", tiny_chatter, tmp_path) as terminal:
        terminal.wait_for("tiny-chatter · cpu")
        terminal.wait_for("Write a message below")
        terminal.type("A man in a boat.")
        terminal.press("enter")
        terminal.wait_until(lambda text: "^R again" in text and "of 128" in text, "the end of the reply")
        terminal.type(CTRL["r"])
        terminal.wait_until(lambda text: "2 of 2" in text and "^R again" in text, "another reply")
        terminal.press("ctrl+q")
        assert terminal.wait_to_end() == 0 and terminal.restored()
    (saved,) = (tmp_path / "chats").glob("*.json")
    turns = json.loads(saved.read_text())["turns"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "assistant"]
    with app("chat", tiny_chatter, tmp_path, NO_COLOR="1") as terminal:
        terminal.wait_for("A man in a boat.")
        terminal.wait_for("2 of 2")
        terminal.press("ctrl+q")
        assert terminal.wait_to_end() == 0


def test_an_engine_killed_in_mid_reply_loses_no_word(tiny_chatter: Path, tmp_path: Path) -> None:
    with app("chat", tiny_chatter, tmp_path) as terminal:
        terminal.wait_for("tiny-chatter · cpu")
        terminal.press("tab", *"++++++++++++++++", "i")  # sixteen replies at once, so that it takes a while
        terminal.type("A man in a boat.")
        terminal.press("enter")
        terminal.wait_until(lambda text: "Esc stop" in text and "1 of 16" in text, "the replies")
        terminal.wait_for("log p")
        children = psutil.Process(terminal.process.pid).children()
        next(child for child in children if "engine" in child.cmdline()).kill()
        terminal.wait_for("SIGKILL")
        terminal.wait_for("A man in a boat.")
        terminal.wait_for("broken off")
        terminal.type(CTRL["e"])  # goes on, on a new engine
        terminal.wait_until(
            lambda text: "tiny-chatter · cpu" in text and "broken off" not in text, "the rest"
        )
        terminal.press("ctrl+q")
        assert terminal.wait_to_end() == 0 and terminal.restored()


def test_masks_are_taken_and_drawn(tiny_filler: Path, tmp_path: Path) -> None:
    with app("", tiny_filler, tmp_path) as terminal:
        terminal.wait_for("tiny-filler · cpu")
        terminal.wait_for("model  drawn")
        terminal.type("\x0cTwo men here" + CTRL["t"])
        terminal.wait_for("Two men [MASK]")
        terminal.wait_for("you had here")
        terminal.press("enter", "2")
        terminal.wait_for("●")
        terminal.type(CTRL["r"])
        terminal.press("u")
        terminal.wait_until(lambda text: "[MASK]" not in text, "the text without its mask")
        terminal.press("ctrl+q")
        assert terminal.wait_to_end() == 0 and terminal.restored()
