"""The plain dialogue with a real engine, on a dumb terminal and in a pipe."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import unicodedata
from pathlib import Path

import psutil
import pytest

from tfm.tui.plain.commands import commands_of
from tfm.tui.plain.dialogue import PARTS

from .driving import HOSTILE

if sys.platform == "win32":
    pytest.skip("pseudo-terminals", allow_module_level=True)
pytest.importorskip("pyte")

from .terminal import APP, Terminal

PLAIN = (*APP, "--plain")


class Dumb(Terminal):
    """A terminal that knows lines of text and nothing else."""

    def __init__(self, home: Path, *options: str) -> None:
        variables = {"TERM": "dumb", "TFM_HOME": str(home), "OMP_NUM_THREADS": "1"}
        super().__init__((*PLAIN, *options), cwd=home, environment=variables)
        self._seen = 0

    def enter(self, line: str, *answers: str) -> str:
        """Type a line and wait for these texts, in any order; everything that was said from there on."""
        start = len(self.raw)
        self.type(line + "\n")
        wanted = [answer.encode() for answer in answers]
        self.wait_until(lambda _: all(w in self.raw[start:] for w in wanted), f"{answers} after {line!r}")
        return bytes(self.raw[start:]).decode()

    def is_plain(self) -> bool:
        """Is there nothing in all of the output but text and line ends?"""
        text = bytes(self.raw).decode().replace("\r\n", "").replace("\n", "")
        # A model of random weights may well write a no-break space or a character that is not assigned.
        return not any(
            unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in "\u202e\u2066" for c in text
        )


def piped(home: Path, lines: str, *options: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "TERM": "dumb", "TFM_HOME": str(home), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        (*PLAIN, *options),
        input=lines,
        capture_output=True,
        text=True,
        env=variables,
        timeout=300,
        check=False,
    )


def engine_of(terminal: Terminal) -> psutil.Process:
    children = psutil.Process(terminal.process.pid).children()
    return next(child for child in children if "engine" in child.cmdline())


def test_translating_on_a_dumb_terminal(tiny_translator: Path, tmp_path: Path) -> None:
    with Dumb(tmp_path, "--model", str(tiny_translator)) as terminal:
        terminal.wait_for("The model is tiny-translator, cpu fp32.")
        terminal.enter("A man in a blue shirt.", "tokens,")
        assert "1: " in terminal.enter("/tokens", "1: ", "entropy")
        assert "(drawn)" in terminal.enter("/rivals 1", "by the model")
        terminal.enter("/set temperature 1.5", "temperature 1.50")
        terminal.enter("/set temperature +", "temperature 1.55")
        terminal.enter("/seed 7", "seed 7")
        first = terminal.enter("/again", "tokens,").split("\n")[1]
        assert first == terminal.enter("/again", "tokens,").split("\n")[1]  # the same seed
        terminal.enter("/knobs", "seed 7", "temperature 1.55")
        terminal.enter("/beam 2", "Beam search, 2 wide.")
        terminal.enter("/again", "tokens,")
        terminal.enter("/beem", "no command /beem", "beam")
        terminal.enter("/help rivals", "/rivals [TOKEN]")
        assert terminal.enter("/earlier", "4: A man").count("A man in a blue shirt. ->") == 4
        engine_of(terminal).kill()
        terminal.wait_until(lambda _: b"The engine has stopped" in terminal.raw, "the news")
        terminal.enter("/again", "tokens,")  # on a new engine
        terminal.type("/quit\n")
        assert terminal.wait_to_end() == 0
        assert terminal.is_plain(), bytes(terminal.raw)


def test_chatting_on_a_dumb_terminal(tiny_chatter: Path, tmp_path: Path) -> None:
    with Dumb(tmp_path, "--mode", "chat", "--model", str(tiny_chatter)) as terminal:
        terminal.wait_for("The model is tiny-chatter")
        terminal.enter("/longest 12", "at most 12 tokens")
        terminal.enter("/system Be brief.", "Be brief.")
        terminal.enter("A man in a boat.", "/continue goes on")
        terminal.enter("/longest 20", "at most 20 tokens")
        terminal.enter("/continue", "/continue goes on")
        terminal.enter("/again", "/continue goes on")
        terminal.enter("/version", "1: ", "2 (stands): ")
        terminal.enter("/version 1", "\nchat> ")
        terminal.enter("/version", "1 (stands): ")
        terminal.enter("/take 2 2", "/continue goes on")
        terminal.enter("/replies 2", "2 replies")
        terminal.enter("/edit 1 A dog in a boat.", "Reply 2 of 2")
        terminal.enter(
            "/turns", "1, you, version 2 of 2: A dog in a boat.", "2, tiny-chatter, version 1 of 2"
        )
        terminal.enter(f"/export {tmp_path}/out", ".md", ".json")
        terminal.enter("/name boats", "called boats")
        terminal.enter("/new", "A new session.")
        terminal.enter("/sessions", "1: boats")
        terminal.enter("/open 1", "A dog in a boat.")
        terminal.enter("/turns", "1, you, version 2 of 2: A dog in a boat.")
        terminal.process.send_signal(signal.SIGHUP)
        assert terminal.wait_to_end(3) == 128 + signal.SIGHUP
        assert terminal.is_plain(), bytes(terminal.raw)
    (saved,) = (tmp_path / "chats").glob("*.json")
    turns = json.loads(saved.read_text())["turns"]
    assert [turn["role"] for turn in turns].count("user") == 2
    assert [turn["role"] for turn in turns].count("assistant") == 5


def test_a_text_can_be_stopped_and_its_knobs_turned_meanwhile(tiny_chatter: Path, tmp_path: Path) -> None:
    with Dumb(tmp_path, "--mode", "chat", "--model", str(tiny_chatter)) as terminal:
        terminal.wait_for("The model is tiny-chatter")
        engine = engine_of(terminal)
        engine.suspend()  # so that it cannot be done before the next lines are heard
        terminal.enter("A man in a boat.", "A man in a boat.")
        terminal.enter("/set temperature 2", "temperature 2.00")
        terminal.type("\x03")
        engine.resume()
        terminal.wait_until(lambda _: terminal.raw.endswith(b"chat> "), "the end of the reply")
        terminal.enter("/turns", "1, you: A man in a boat.")
        terminal.enter("/seed 3", "seed 3")
        terminal.enter("/again", "\nchat> ")
        engine.suspend()
        terminal.enter("A dog in a boat.", "A dog in a boat.")
        engine.kill()
        terminal.wait_until(lambda _: b"SIGKILL" in terminal.raw, "the message")
        terminal.enter("/turns", "A dog in a boat.")  # what was said stays
        terminal.type("\x04")
        assert terminal.wait_to_end() == 0
        assert terminal.is_plain(), bytes(terminal.raw)
    (saved,) = (tmp_path / "chats").glob("*.json")
    assert "A dog in a boat." in saved.read_text()


def test_filling_and_training_in_a_pipe(tiny_filler: Path, tiny_config: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    lines = (
        "Two [MASK] here [MASK].\n/masks\n/take 1 2\n/draw\n/draw\n/open\nno mask\n"
        f"{HOSTILE} [MASK]\n"
        f"/mode train\n/start {tiny_config} loop.max_steps=12\n/watch\n/runs\n/run pause\n"
    )
    done = piped(home, lines, "--mode", "fill", "--model", str(tiny_filler))
    assert done.returncode == 1  # a line failed: the one without a mask, and the run is over
    assert "Mask 2: 1 " in done.stdout
    assert "step 12/12 100 %" in done.stdout and ": finished, step 12 of 12" in done.stdout
    assert "There is no mask in it" in done.stderr and len(done.stderr.splitlines()) < 8, done.stderr
    out = done.stdout + done.stderr
    assert all(c.isprintable() or c == "\n" for c in out), repr(out)


def test_a_pipe_holds_the_translations_and_nothing_else(tiny_translator: Path, tmp_path: Path) -> None:
    done = piped(tmp_path, "A man.\n\n//slash\nA dog.\n/quit\nnever\n", "--model", str(tiny_translator))
    assert done.returncode == 0 and done.stderr == ""
    assert len(done.stdout.splitlines()) == 3


def test_every_command_explains_itself_and_has_one_meaning(tmp_path: Path) -> None:
    lines = "".join(f"/mode {kind.NAME}\n/help\n" for kind in PARTS) + "/mode nowhere\n/help nothing\n"
    done = piped(tmp_path, lines)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 2
    for kind in PARTS:
        names = [n for m in vars(kind).values() if hasattr(m, "command") for n in m.command[0]]
        assert len(names) == len(set(names))
        assert all(f"/{name}" in done.stdout for name in names)
    assert len(list(commands_of(object()))) == 0


def test_a_dumb_terminal_is_told_of_it(tmp_path: Path) -> None:
    with Terminal(APP, environment={"TERM": "dumb", "TFM_HOME": str(tmp_path)}) as terminal:
        assert terminal.wait_to_end(30) == 2
        said = bytes(terminal.raw).decode().strip()
        assert "\n" not in said and "tfm-tui --plain" in said and "\x1b" not in said


def test_a_text_is_read_token_by_token_in_a_pipe(tiny_decoder: Path, tmp_path: Path) -> None:
    done = piped(tmp_path, "/chain\nA man in a boat.\n/chain 2\n", "--mode", "lab", "-m", str(tiny_decoder))
    said = done.stdout.splitlines()
    assert done.returncode == 1 and "type a text first" in done.stderr  # the first line asked too early
    assert said[0].startswith("1: ") and ", rank " in said[0] and "perplexity" in done.stderr
    assert any("by the model" in line for line in said) and any(" left, mass " in line for line in said)


def test_what_a_translation_translates_is_given_first(tiny_translator: Path, tmp_path: Path) -> None:
    lines = "Ein Mann.\n/given A man.\nEin Mann.\n"
    done = piped(tmp_path, lines, "--mode", "lab", "-m", str(tiny_translator))
    assert "/given TEXT says first" in done.stderr and done.stdout.startswith("1: ")


def test_checkpoints_are_looked_at_and_deleted(tiny_decoder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "checkpoints" / "mine"
    shutil.copytree(tiny_decoder, mine)
    (mine / "card.md").write_text(f"# mine: {HOSTILE}\n")
    lines = ["/card mine", "/verify en-de", "/verify mine", "/unload mine"]
    lines += ["/delete mine", "/delete en-de yes", "/delete mine yes", ""]
    done = piped(tmp_path, "\n".join(lines), "--mode", "train")
    assert "decoder-only" in done.stdout and "[b]x[/b]" in done.stdout and "\x1b" not in done.stdout
    assert "en-de: every file is as its manifest says" in done.stdout
    assert "card.md" in done.stderr  # it is not the one of the manifest
    assert "/delete mine yes does it" in done.stderr and "bundled" in done.stderr
    assert "mine is deleted." in done.stdout and not mine.exists() and done.returncode == 1
