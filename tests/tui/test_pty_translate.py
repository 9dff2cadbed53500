"""The real app in a real pseudo-terminal with a real engine: from launch to a translation and out."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

if sys.platform == "win32":
    pytest.skip("pseudo-terminals", allow_module_level=True)
pytest.importorskip("pyte")

from .terminal import APP, Terminal

BUNDLED = Path(__file__).parents[2] / "checkpoints" / "en-de" / "model.safetensors"


def app(model: Path | str, home: Path, **options: object) -> Terminal:
    environment = {"TFM_HOME": str(home), "OMP_NUM_THREADS": "1"}
    return Terminal((*APP, "--model", str(model)), cwd=home, environment=environment, **options)  # type: ignore[arg-type]


def engine_of(terminal: Terminal) -> psutil.Process:
    children = psutil.Process(terminal.process.pid).children()
    return next(child for child in children if "engine" in child.cmdline())


def target(terminal: Terminal) -> str:
    """What the lower left box holds, as one line."""
    rows = terminal.screen.display
    top = next(n for n, row in enumerate(rows) if n > 2 and row.startswith("╭"))
    inner = [row[1:].split("│")[0].strip() for row in rows[top + 1 :] if row.startswith("│")]
    return " ".join(line for line in inner if line)


def wait_to_finish(terminal: Terminal) -> None:
    """Until figures, keys and text all say that the translation is done; they paint one after another."""

    def done(text: str) -> bool:
        return "tokens · log p" in text and "^R again" in text and "▌" not in text

    terminal.wait_until(done, "the end of the translation")


def test_a_sentence_streams_and_the_terminal_comes_back(tiny_translator: Path, tmp_path: Path) -> None:
    with app(tiny_translator, tmp_path) as terminal:
        terminal.wait_for("tiny-translator · cpu")
        terminal.type("A man in a blue shirt is standing on a ladder.")
        terminal.wait_for(["on", "a", "ladder."][-1])
        terminal.press("enter")
        wait_to_finish(terminal)
        assert target(terminal)
        terminal.press("tab", "left")
        terminal.wait_for("token 1")
        terminal.press("q")
        assert terminal.wait_to_end() == 0
        assert terminal.restored()


@pytest.mark.skipif(not BUNDLED.exists(), reason="checkpoints/en-de has not been trained yet")
def test_the_bundled_model_writes_german(tmp_path: Path) -> None:
    with app("en-de", tmp_path) as terminal:
        terminal.wait_for("en-de · cpu")
        terminal.type("A man in a blue shirt is standing on a ladder.")
        terminal.press("enter")
        wait_to_finish(terminal)
        words = target(terminal).replace(".", "").split()
        assert words[:2] == ["Ein", "Mann"] and "Leiter" in words, target(terminal)
        terminal.press("ctrl+q")
        assert terminal.wait_to_end() == 0
        assert terminal.restored()


def test_an_engine_killed_in_mid_stream_is_a_message(tiny_translator: Path, tmp_path: Path) -> None:
    with app(tiny_translator, tmp_path, columns=110) as terminal:
        terminal.wait_for("tiny-translator · cpu")
        terminal.type("A boy sits on a woman.\n" * 40)  # ctrl+j: forty lanes, so that it takes a while
        terminal.press("enter")
        terminal.wait_until(lambda text: "Esc stop" in text and target(terminal).strip("▌ ") != "", "tokens")
        engine_of(terminal).kill()
        terminal.wait_for("SIGKILL")
        assert target(terminal).strip("▌ ")  # the text that came stays
        terminal.wait_for("broken off")
        terminal.type("\x05")  # ctrl+e: it goes on
        terminal.wait_for("tiny-translator · cpu")  # a new engine, the model in it
        wait_to_finish(terminal)
        assert "broken off" not in terminal.text
        terminal.press("ctrl+q")
        assert terminal.wait_to_end() == 0


def test_ctrl_c_stops_what_is_written_and_leaves_nothing(tiny_translator: Path, tmp_path: Path) -> None:
    with app(tiny_translator, tmp_path, columns=110) as terminal:
        terminal.wait_for("tiny-translator · cpu")
        terminal.type("A boy sits on a woman.\n" * 40)
        terminal.press("enter")
        terminal.wait_until(lambda text: "Esc stop" in text and target(terminal).strip("▌ ") != "", "tokens")
        terminal.type("\x03")
        terminal.wait_for("stopped")
        assert target(terminal).strip("▌ ")
        terminal.type("\x03")
        terminal.wait_for("^Q leaves")
        terminal.press("ctrl+q")
        assert terminal.wait_to_end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_restores_the_terminal(
    number: int, tiny_translator: Path, tmp_path: Path
) -> None:
    with app(tiny_translator, tmp_path) as terminal:
        terminal.wait_for("Translate")
        terminal.wait_for("tiny-translator · cpu")
        engine = engine_of(terminal)
        started = time.monotonic()
        terminal.process.send_signal(number)
        assert terminal.wait_to_end() == 128 + number
        assert time.monotonic() - started < 5
        assert terminal.restored()
        engine.wait(10)


def test_it_ends_when_its_terminal_is_gone(tiny_translator: Path, tmp_path: Path) -> None:
    with app(tiny_translator, tmp_path) as terminal:
        terminal.wait_for("tiny-translator · cpu")
        engine = engine_of(terminal)
        terminal.hang_up()
        terminal.process.wait(10)
        engine.wait(10)


def test_no_terminal_worth_the_name_is_one_sentence(tmp_path: Path) -> None:
    for term in ("dumb", ""):
        with Terminal(APP, environment={"TERM": term, "TFM_HOME": str(tmp_path)}) as terminal:
            assert terminal.wait_to_end(30) == 2
            said = bytes(terminal.raw).decode().strip()
            assert "\n" not in said and "tfm-tui --plain" in said and "\x1b" not in said


def test_no_colour_is_obeyed(tiny_translator: Path, tmp_path: Path) -> None:
    environment = {"NO_COLOR": "1", "TFM_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = (*APP, "--model", str(tiny_translator))
    with Terminal(command, environment=environment) as terminal:
        terminal.wait_for("tiny-translator · cpu")
        greys = {
            (char.fg, char.bg)
            for row in terminal.screen.buffer.values()
            for char in row.values()
            if char.fg != "default"
        }
        assert all(len({c[i : i + 2] for i in (0, 2, 4)}) == 1 for pair in greys for c in pair if len(c) == 6)
        terminal.press("ctrl+q")
        assert terminal.wait_to_end() == 0


def test_importing_the_app_loads_no_torch() -> None:
    screens = "tfm.tui.screens.translate, tfm.tui.screens.train"
    code = f"import sys, tfm.tui.app, {screens}; print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("torch", "numpy", "tokenizers", "safetensors", "tfm.core.model", "sacrebleu"):
        assert f"'{heavy}'" not in out
