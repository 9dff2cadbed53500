"""The whole app over a real sshd, in a real pseudo-terminal: lost, found again, signed in to."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("pseudo-terminals", allow_module_level=True)
pytest.importorskip("pyte")

from .loopback import Loopback, box_or_skip
from .terminal import APP, Terminal

CTRL_E = "\x05"


@pytest.fixture
def loopback(tmp_path: Path) -> Iterator[Loopback]:
    there = box_or_skip(tmp_path)
    there.start()
    yield there
    there.stop()


def app(there: Loopback, *options: str, term: str = "xterm-256color") -> Terminal:
    home = there.folder / "home-here"
    home.mkdir(exist_ok=True)
    variables = {"TFM_HOME": str(home), "TFM_SSH": there.ssh, "TERM": term}
    command = (*APP, "--host", "box", *options)
    return Terminal(command, cwd=home, environment=variables, columns=110, rows=40)


def test_a_chat_over_ssh_survives_the_loss_of_its_connection(loopback: Loopback, tiny_chatter: Path) -> None:
    with app(loopback, "--mode", "chat", "--model", str(tiny_chatter)) as terminal:
        terminal.wait_for("tiny-chatter · box · cpu")
        terminal.press("tab", *"++++++++++++++++", "i")  # sixteen replies at once, so that it takes a while
        terminal.type("A man in a boat.")
        terminal.press("enter")
        terminal.wait_until(lambda text: "Esc stop" in text and "log p" in text, "the replies")
        loopback.stop()
        terminal.wait_for("box lost · next try in")
        terminal.wait_for("broken off")
        terminal.wait_for("A man in a boat.")
        loopback.start()
        terminal.wait_for("tiny-chatter · box · cpu")  # by itself, the model too
        terminal.type(CTRL_E)
        terminal.wait_until(lambda text: "broken off" not in text and "^R again" in text, "the rest")
        (engine,) = loopback.engines()
        terminal.press("ctrl+q")
        assert terminal.wait_to_end() == 0 and terminal.restored()
        engine.wait(10)  # nothing of ours stays over there
    (saved,) = (loopback.folder / "home-here" / "chats").glob("*.json")
    assert "A man in a boat." in saved.read_text()
    assert not (loopback.home / "chats").exists()  # conversations stay with the person


def test_a_key_with_a_passphrase_is_asked_for_and_the_app_goes_on(
    loopback: Loopback, tiny_translator: Path
) -> None:
    loopback.lock_key("open sesame")
    with app(loopback, "--model", str(tiny_translator)) as terminal:
        terminal.wait_for("Enter passphrase for key")
        terminal.type("wrong\n")
        terminal.wait_until(lambda _: terminal.raw.count(b"Enter passphrase") == 2, "another question")
        terminal.type("open sesame\n")
        terminal.wait_for("tiny-translator · box · cpu")
        terminal.type("A man in a boat.")
        terminal.press("enter")
        terminal.wait_until(lambda text: "^R again" in text and "tokens · log p" in text, "a translation")
        sockets = list(Path("/tmp").glob("tfm-ssh-*/ssh"))
        loopback.engines()[0].kill()  # the sign-in is still good: nothing is asked again
        terminal.wait_until(lambda text: "tiny-translator · box · cpu" not in text, "the loss")
        terminal.wait_for("tiny-translator · box · cpu")
        assert terminal.raw.count(b"Enter passphrase") == 2
        terminal.press("ctrl+q")
        assert terminal.wait_to_end() == 0 and terminal.restored()
        assert not any(socket.exists() for socket in sockets)
        assert loopback.sessions() == []


def test_who_does_not_answer_sees_why_and_can_try_again(loopback: Loopback, tiny_translator: Path) -> None:
    loopback.lock_key("open sesame")
    with app(loopback, "--model", str(tiny_translator)) as terminal:
        terminal.wait_for("Enter passphrase for key")
        terminal.type("\x03")
        terminal.wait_for("F12 signs in")
        terminal.type("\x1b[24~")  # F12
        terminal.wait_until(lambda _: terminal.raw.count(b"Enter passphrase") == 2, "the question")
        terminal.type("open sesame\n")
        terminal.wait_for("tiny-translator · box · cpu")
        terminal.press("ctrl+q")
        assert terminal.wait_to_end() == 0 and terminal.restored()


def test_the_plain_dialogue_over_ssh(loopback: Loopback, tiny_translator: Path) -> None:
    loopback.lock_key("open sesame")
    with app(loopback, "--plain", "--model", str(tiny_translator), term="dumb") as terminal:
        terminal.wait_for("Enter passphrase for key")
        terminal.type("open sesame\n")
        terminal.wait_for("The model is tiny-translator on box, cpu")
        terminal.type("A man in a boat.\n")
        terminal.wait_for("log p")
        loopback.cut()
        terminal.wait_for("Lost box; trying to reach it again.")
        terminal.type("/quit\n")
        assert terminal.wait_to_end() == 0
        assert b"\x1b" not in terminal.raw
