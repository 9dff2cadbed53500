"""``translate``, ``generate``, ``score`` and ``fill`` on small real checkpoints."""

from __future__ import annotations

import math
import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pexpect
import pytest

from tests.cli.conftest import EXECUTABLE, Ran, Run
from tests.conftest import SENTENCES
from tfm.tui.commands.translate import as_line

PIPE = "\n".join([*SENTENCES, "", "  ", *SENTENCES[:3]]) + "\n"


def same_text(ran: Ran) -> list[str]:
    assert ran.status == 0, ran.err
    return ran.out.removesuffix("\n").split("\n")


def test_a_pipe_gives_one_line_for_each_in_order(run: Run, tiny_translator: Path) -> None:
    lines = same_text(run("translate", "-m", tiny_translator, stdin=PIPE.encode()))
    assert len(lines) == len(SENTENCES) + 5
    assert lines[len(SENTENCES) : len(SENTENCES) + 2] == ["", ""]
    assert lines[-3:] == lines[:3]  # what else is in the batch changes nothing
    assert all(lines[: len(SENTENCES)])


def test_a_line_alone_is_that_line_of_a_pipe(run: Run, tiny_translator: Path) -> None:
    for options in ([], ["--beam", "1"], ["--seed", "7", "--temperature", "0.8"]):
        piped = same_text(run("translate", "-m", tiny_translator, *options, stdin=PIPE.encode()))
        alone = run("translate", "-m", tiny_translator, *options, SENTENCES[1])
        assert same_text(alone) == [piped[1]]


def test_a_pipe_longer_than_a_chunk(run: Run, tiny_translator: Path) -> None:
    words = [SENTENCES[i % len(SENTENCES)] for i in range(600)]
    options = ["--beam", "1", "--max-tokens", "3"]
    lines = same_text(run("translate", "-m", tiny_translator, *options, stdin="\n".join(words).encode()))
    assert len(lines) == 600
    assert lines[: len(SENTENCES)] * 60 == lines


def test_records_say_how_a_line_came_about(run: Run, tiny_translator: Path) -> None:
    ran = run("translate", "-m", tiny_translator, "--json", "--beam", "2", stdin=b"A man.\n\nA dog.\n")
    assert [(r["line"], r["source"]) for r in ran.records] == [(1, "A man."), (2, ""), (3, "A dog.")]
    assert ran.records[1]["translation"] == ""
    assert ran.records[0]["beam"] == 2
    sampled = run("translate", "-m", tiny_translator, "--json", "--top-k", "5", "A man.")
    [record] = sampled.records
    assert record["settings"] == {"top_k": 5}
    assert sampled.err == f"seed {record['seed']}\n"
    again = run("translate", "-m", tiny_translator, "--top-k", "5", "--seed", record["seed"], "A man.")
    assert same_text(again) == [record["translation"]]


def test_what_comes_before_a_bad_line_is_written(run: Run, tiny_translator: Path) -> None:
    good = same_text(run("translate", "-m", tiny_translator, stdin=b"A man.\nA dog.\n"))
    for bad, sentence in (
        (b"caf\xe9", "line 3 of stdin is not valid UTF-8"),
        (b"a" * 100_000, "line 3 is too long for tiny-translator: its 100,000 characters are 100,001 tokens"),
    ):
        ran = run("translate", "-m", tiny_translator, stdin=b"A man.\nA dog.\n" + bad + b"\nA cat.\n")
        assert ran.status == 2
        assert ran.out.removesuffix("\n").split("\n") == good
        assert sentence in ran.err and ran.err.count("\n") == 1


def test_beam_and_sampling_exclude_each_other(run: Run) -> None:
    ran = run("translate", "x", "--beam", "5", "--temperature", "1")
    assert ran.status == 2
    assert "give one or the other" in ran.err


@pytest.mark.parametrize(
    ("command", "fixture", "hint"),
    [
        ("translate", "tiny_decoder", "is decoder-only; use tfm-tui generate"),
        ("translate", "tiny_filler", "is encoder-only; use tfm-tui fill"),
        ("generate", "tiny_translator", "is encoder-decoder; use tfm-tui translate"),
        ("fill", "tiny_decoder", "is decoder-only; use tfm-tui generate"),
    ],
)
def test_the_wrong_family_is_told_the_right_command(
    run: Run, command: str, fixture: str, hint: str, request: pytest.FixtureRequest
) -> None:
    ran = run(command, "-m", request.getfixturevalue(fixture), "A man.")
    assert ran.status == 2
    assert hint in ran.err


def test_generate_continues(run: Run, tiny_decoder: Path) -> None:
    options = ["-m", tiny_decoder, "--max-tokens", "8"]
    first = run("generate", *options, "--seed", "3", "--json", "A man")
    [record] = first.records
    assert record["prompt"] == "A man"
    assert record["reason"] in ("eos", "length")
    assert len(record["tokens"]) <= 8  # type: ignore[arg-type]
    assert run("generate", *options, "--seed", "3", stdin=b"A man").out == f"{record['text']}\n"
    greedy = run("generate", *options, "--temperature", "0", "--json", "A man").records[0]
    assert greedy["settings"] == {"temperature": 0.0}
    assert run("generate", *options, "--json", "A man").records[0]["settings"] == {
        "temperature": 0.7,
        "top_p": 0.95,
    }


def test_generate_stops_before_a_stop_text(run: Run, tiny_decoder: Path) -> None:
    options = ["-m", tiny_decoder, "--max-tokens", "20", "--temperature", "0", "--json", "A man"]
    whole = str(run("generate", *options).records[0]["text"])
    stop = whole[2:4]
    [record] = run("generate", "--stop", stop, *options).records
    assert record["reason"] == "stop"
    assert record["text"] == whole[: whole.index(stop)]


def test_score_adds_up(run: Run, tiny_decoder: Path, tiny_translator: Path) -> None:
    [record] = run("score", "-m", tiny_decoder, "--json", "A man in a blue shirt.").records
    logprobs = [token["logprob"] for token in record["tokens"]]  # type: ignore[union-attr, index]
    assert math.isclose(sum(logprobs), record["logprob"], rel_tol=1e-9)  # type: ignore[arg-type]
    assert math.isclose(math.exp(-sum(logprobs) / len(logprobs)), record["perplexity"])  # type: ignore[arg-type]
    table = run("score", "-m", tiny_decoder, stdin=b"A man in a blue shirt.\n").out
    assert f"perplexity {record['perplexity']:.3f}" in table
    assert run("score", "-m", tiny_translator, "--source", "A man.", "Ein Mann.").status == 0
    alone = run("score", "-m", tiny_translator, "Ein Mann.")
    assert alone.status == 2 and "source" in alone.err


def test_fill_names_candidates_for_each_gap(run: Run, tiny_filler: Path) -> None:
    [record] = run("fill", "-m", tiny_filler, "--json", "-n", "3", "A [MASK] in a [MASK].").records
    assert [len(mask["candidates"]) for mask in record["masks"]] == [3, 3]  # type: ignore[union-attr, index]
    assert run("fill", "-m", tiny_filler, "-n", "3", "A [MASK] in a [MASK].").out.count("\n") == 7
    assert "there is no mask" in run("fill", "-m", tiny_filler, "A man.").err


def test_fill_has_a_bundled_model_to_fall_back_on(run: Run) -> None:
    ran = run("fill", "A man in a blue [MASK] is standing on a ladder.", "--json")
    assert ran.status == 0
    assert "shirt" in ran.out


@pytest.mark.parametrize("command", ["generate", "score", "eval"])
def test_without_a_model_the_option_is_asked_for(run: Run, command: str) -> None:
    ran = run(command, *([] if command == "eval" else ["some text"]))
    assert ran.status == 2
    assert "--model" in ran.err
    assert "Traceback" not in ran.err and len(ran.err.strip().splitlines()) == 1


def test_line_ends_of_a_model_do_not_shift_lines() -> None:
    assert as_line("a\nb\r\nc\rd\u2028e") == "a b c d\u2028e"


# --------------------------------------------------------------------------- in a terminal
@pytest.fixture
def terminal(tmp_path: Path) -> SimpleNamespace:
    """``terminal.open(...)``: a command in a pseudo-terminal of 80 columns."""
    children: list[pexpect.spawn[bytes]] = []

    def open_(*args: object, command: list[str] | None = None) -> pexpect.spawn[bytes]:
        child = pexpect.spawn(
            (command or EXECUTABLE)[0],
            [*(command or EXECUTABLE)[1:], *map(str, args)],
            dimensions=(24, 80),
            timeout=60,
            env={**os.environ, "TERM": "xterm-256color", "TFM_HOME": str(tmp_path)},
        )
        children.append(child)
        return child

    yield SimpleNamespace(open=open_)
    for child in children:
        child.close(force=True)


def test_a_terminal_gets_the_leading_hypothesis_and_then_the_translation(
    terminal: SimpleNamespace, run: Run, tiny_translator: Path
) -> None:
    [best] = same_text(run("translate", "-m", tiny_translator, SENTENCES[0]))
    child = terminal.open("translate", "-m", tiny_translator, SENTENCES[0])
    child.expect(pexpect.EOF)
    drawn = child.before.decode().split("\r")
    assert len(drawn) > 10  # drawn over and over while it searches
    assert best.replace("\t", "    ")[:20] in drawn[-2]


def test_what_a_model_writes_steers_no_terminal(terminal: SimpleNamespace, tiny_decoder: Path) -> None:
    """A random model writes control characters soon enough."""
    child = terminal.open("generate", "-m", tiny_decoder, "--seed", "1", "--max-tokens", "200", "A")
    child.expect(pexpect.EOF)
    written = child.before.decode().replace("\r\n", "")
    assert any("\u2400" <= character <= "\u2420" for character in written)
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in written)


def test_a_pipe_shows_its_progress_on_a_terminal(terminal: SimpleNamespace, tiny_translator: Path) -> None:
    command = f"yes 'A man.' | head -600 | {' '.join(EXECUTABLE)} translate --beam 1 -m {tiny_translator}"
    child = terminal.open(command=["sh", "-c", f"{command} --max-tokens 4 > /dev/null"])
    child.expect("0/600 lines")
    child.expect("600/600 lines")
    child.expect(pexpect.EOF)
    assert child.before.endswith(b"\x1b[K")  # nothing of it stays on the screen


def test_interrupting_a_pipe_is_quiet_and_keeps_what_is_written(
    tmp_path: Path, tiny_translator: Path
) -> None:
    process = subprocess.Popen(
        [*EXECUTABLE, "translate", "-m", str(tiny_translator), "--beam", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TFM_HOME": str(tmp_path)},
    )
    assert process.stdin and process.stdout
    process.stdin.write(b"A man.\n")
    process.stdin.flush()
    assert process.stdout.readline().strip()  # it does not wait for a chunk to be full
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == b""
