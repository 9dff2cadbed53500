"""Hostile strings through every place that shows text, in a real terminal: they are shown, and do nothing.

What is asserted is the bytes that the terminal was sent. The strings come from where they would come
from: a tokenizer whose tokens they are, cards, folder names, saved chats, event logs, pastes.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import make_checkpoint
from tests.tui.conftest import CHATML
from tests.tui.terminal import Terminal

MARKUP = (
    "[b]bold[/b]", "[@click=app.leave]leave[/]", "[@click=app.quit()]q[/]", "[link=https://e.vil]x[/link]",
    "[red on blue]c[/]", "[/]", "[not closed", "[on $error]t[/]", "\\[b]", "[[b]]", "[$text-muted]v",
)  # fmt: skip
# Each with what would show that it got through: no sequence of the app's own looks like it.
STEERING = {
    "\x1b]52;c;aGFja2Vk\x07": (b"\x1b]52", b"Vk\x07"),  # writes the clipboard
    "\x1b]0;pwned\x1b\\": (b"\x1b]0;",),  # names the window
    "\x1bc": (b"\x1bc",),  # resets the terminal
    "\x1bP+q544e\x1b\\": (b"\x1bP+q",),  # asks the terminal, which then types
    "\x1b[5;6;8mblink": (b"\x1b[5;6;8m",),
    "\x1b[21t": (b"\x1b[21t",),  # has the title typed
    "\x9b5n": (b"\xc2\x9b", b"\x9b5n"),  # CSI in one character
    "\x9d52;c;eA==\x9c": (b"\xc2\x9d", b"\xc2\x9c"),  # OSC in one character
    "\u202eleft\u2066\u2069": ("\u202e".encode(), "\u2066".encode(), "\u2069".encode()),
    "zero\u200bwidth\ufeff": ("\u200b".encode(), "\ufeff".encode()),
    "tag\U000e0041": ("\U000e0041".encode(),),
}
STRINGS = (*MARKUP, *STEERING)
ALL = " ".join(STRINGS)
SHOWN = "[@click=app.leave]leave[/]"
NAME = "evil \x1b]52;c;eA==\x07\x1bc\x9b5n[@click=app.leave]leave[;]\u202e"


def nothing_got_through(terminal: Terminal) -> None:
    for text, traces in STEERING.items():
        for trace in traces:
            at = terminal.raw.find(trace)
            around = bytes(terminal.raw[max(at - 60, 0) : at + 60])
            assert at < 0, f"{text!r} reached the terminal as {trace!r}: {around!r}"
    assert terminal.process.poll() is None, "the app was ended by a text"


def hostile_model(folder: Path, family: str, **fields: Any) -> Path:
    """A checkpoint whose every token is one of the strings, with a card, languages and scores to match."""
    from tfm.core.checkpoint import load_checkpoint, save_checkpoint
    from tfm.core.model import build_model
    from tfm.core.tokenizer import Tokenizer

    plain = load_checkpoint(make_checkpoint(folder.with_name(f".tmp-{family}"), family, **fields))
    pipeline = json.loads(plain.tokenizer.to_json())
    first = plain.tokenizer.vocab_size
    usual = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    pipeline["added_tokens"] += [
        {"id": first + n, "content": f"{text} ", **usual} for n, text in enumerate(STRINGS)
    ]
    tokenizer = Tokenizer.from_json(json.dumps(pipeline))
    config = plain.config.replace(vocab_size=tokenizer.vocab_size, output_bias=True)
    torch.manual_seed(0)
    model = build_model(config).eval()
    with torch.no_grad():
        bias = next(p for name, p in model.named_parameters() if name == "head.bias")
        bias[:first] = float("-1e9")
        bias[first:] = 0.0
    training = {"scores": {ALL: 1.0}, "languages": [ALL, ALL]}
    return save_checkpoint(folder, model, config, tokenizer, f"# {ALL}\n\n{ALL}\n", training)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """$TFM_HOME with hostile models, a broken one, a chat and a run."""
    from tfm.train import events
    from tfm.train.event_log import EventLog
    from tfm.train.run_dir import RunDir

    home = tmp_path_factory.mktemp("home")
    for family, positions in (
        ("encoder-decoder", "sinusoidal"),
        ("decoder-only", "rotary"),
        ("encoder-only", "sinusoidal"),
    ):
        hostile_model(home / "checkpoints" / f"{family} {NAME}", family, positions=positions)
    (home / "checkpoints" / f"decoder-only {NAME}" / "chat_template.jinja").write_text(CHATML)
    broken = home / "checkpoints" / f"broken {NAME}"
    broken.mkdir()
    (broken / "config.json").write_text(json.dumps({ALL: 1}))

    run = RunDir.create('name = "evil"\n', f"a {NAME}".replace("\x07", ""), home / "runs")
    with run.lock():
        log = EventLog(run)
        log.append(
            events.RunStarted(
                run=run.id, objective=ALL, n_parameters=1, total_steps=9, steps_per_epoch=3, device=ALL,
                precision=ALL,
            )
        )  # fmt: skip
        log.append(events.Samples(step=1, samples=(events.Sample(source=ALL, reference=ALL, output=ALL),)))
        log.append(events.Notice(level="warning", message=ALL))
        log.append(events.RunEnded(reason="failed", step=1, message=ALL))
        log.close()
    return home


def walk(home: Path, *options: str, columns: int = 120, rows: int = 40) -> Terminal:
    from tests.tui.terminal import APP

    return Terminal(
        [*APP, *options],
        columns=columns,
        rows=rows,
        environment={"TFM_HOME": str(home), "OMP_NUM_THREADS": "1"},
    )


def paste(terminal: Terminal, text: str) -> None:
    """As a terminal sends it, which itself takes the ESC out: it would end the paste early."""
    terminal.type(f"\x1b[200~{text.replace(chr(27), '')}\x1b[201~")


def overlay(terminal: Terminal, text: str) -> None:
    """Wait for one and leave it; a key that follows an Esc at once would count as Alt with it."""
    terminal.wait_for(text)
    for _ in range(20):
        terminal.press("escape")
        time.sleep(0.4)
        terminal.read()
        if text not in terminal.text:
            return
    raise AssertionError(f"{text!r} stays:\n{terminal.text}")


def test_translating(home: Path) -> None:
    with walk(home, "--model", f"encoder-decoder {NAME}") as terminal:
        terminal.wait_for("tfm")
        paste(terminal, ALL)
        terminal.wait_for(SHOWN)
        terminal.press("enter")
        terminal.wait_until(lambda text: "log p" in text and text.count(SHOWN) > 1, "tokens that are shown")
        terminal.press("escape", "tab", "left", "left")  # the candidates of a token
        terminal.press("]", "T", "T", "ctrl+r")  # other tokens
        terminal.read(2.0)
        terminal.press("escape", "left", "left", "c")  # the saved ones, by their beginnings
        terminal.read(0.5)
        nothing_got_through(terminal)


def test_chatting(home: Path) -> None:
    with walk(home, "--mode", "chat", "--model", f"decoder-only {NAME}") as terminal:
        terminal.wait_for("tfm")
        paste(terminal, ALL)
        terminal.wait_for(SHOWN)
        terminal.press("enter")
        terminal.wait_until(lambda text: text.count(SHOWN) > 1, "a reply")
        terminal.press("escape", "escape", "c")  # the titles of chats
        terminal.read(1.0)
        nothing_got_through(terminal)


def test_filling(home: Path) -> None:
    with walk(home, "--mode", "fill", "--model", f"encoder-only {NAME}") as terminal:
        terminal.wait_for("tfm")
        terminal.press("ctrl+l")
        paste(terminal, f"{ALL} [MASK]")
        terminal.wait_for(SHOWN)
        terminal.wait_until(lambda text: "0.0" in text, "candidates")
        nothing_got_through(terminal)


@pytest.mark.parametrize("family", ["encoder-decoder", "decoder-only", "encoder-only"])
def test_reading_in_the_lab(home: Path, family: str) -> None:
    with walk(home, "--mode", "lab", "--model", f"{family} {NAME}") as terminal:
        terminal.wait_for("tokens ·")
        terminal.press("i")
        terminal.wait_for("Enter look at it")  # the text takes what is typed
        paste(terminal, " ".join((*MARKUP, *(text for text in STEERING if "\x1b" not in text))))
        terminal.press("enter")
        terminal.wait_for("▸ [b]bold[/b]")  # its first token; a column cuts the longer ones
        terminal.press("down", "down", "n", "T", "end")  # rivals, and what the chain does with them
        terminal.read(1.5)
        nothing_got_through(terminal)


def test_models_runs_palette_and_help(home: Path) -> None:
    with walk(home, "--mode", "models") as terminal:
        terminal.wait_for("evil")
        for _ in range(7):
            terminal.press("down")
            terminal.read(0.3)
        terminal.wait_for("[@click=app.leave]")
        terminal.press("v", "l", "c", "up")  # progress, problems, two cards side by side
        terminal.read(1.0)
        terminal.press("x")
        overlay(terminal, "Keep it")
        terminal.press("i")
        terminal.wait_for("Import: path")
        paste(terminal, f"/{ALL}")
        terminal.press("enter")
        terminal.wait_for("what to call it")
        terminal.press("enter")  # what is wrong with it is quoted
        terminal.read(0.5)
        overlay(terminal, "what to call it")
        terminal.press("ctrl+o")  # every name with its scores
        overlay(terminal, "Enter choose")
        terminal.press("ctrl+p")
        terminal.wait_for("Search")
        paste(terminal, ALL)
        overlay(terminal, "No matches")
        terminal.press("f9")
        overlay(terminal, "scroll · Esc back")
        terminal.press("f5")
        terminal.wait_for("failed")
        terminal.press("enter")
        terminal.wait_until(lambda text: SHOWN in text, "its samples")
        nothing_got_through(terminal)
