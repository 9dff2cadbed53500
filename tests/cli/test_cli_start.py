"""What the command line does before any command: listing, suggesting, completing, refusing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.cli.conftest import EXECUTABLE, Run
from tfm.tui.cli import COMMANDS, cli, one_line


def loaded_modules(*args: str) -> set[str]:
    """Names of all modules that are in memory once these arguments have been served."""
    code = (
        "import sys\nfrom tfm.tui.cli import main\n"
        f"main({list(args)!r})\nprint(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize("args", [["--help"], ["translate", "--help"], ["runs"], ["models"]])
def test_what_needs_no_model_loads_neither_torch_nor_textual(args: list[str], tmp_path: Path) -> None:
    os.environ.pop("_TFM_TUI_COMPLETE", None)
    loaded = loaded_modules(*args)
    assert not {"torch", "tokenizers", "numpy"} & loaded
    if "runs" not in args and "models" not in args:
        assert "textual" not in loaded
        assert "msgspec" not in loaded or "translate" in args


def test_the_overview_says_of_each_command_what_the_command_says() -> None:
    context = click.Context(cli)
    for name, entry in COMMANDS.items():
        command = cli.get_command(context, name)
        assert command is not None and command.help is not None
        assert command.name == name
        assert command.help.splitlines()[0] == entry.help


def test_help_lists_every_command_and_how_to_complete(run: Run) -> None:
    ran = run("--help")
    assert ran.status == 0
    assert all(f"  {name} " in ran.out for name in COMMANDS)
    assert "_TFM_TUI_COMPLETE=bash_source" in ran.out


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["transalte"], "tfm-tui: there is no command 'transalte'; did you mean 'translate'?"),
        (["xyzzy"], "tfm-tui: there is no command 'xyzzy'"),
        (["runs", "--jsn"], "tfm-tui runs: there is no option '--jsn'; did you mean '--json'?"),
        (["attach"], "tfm-tui attach: Missing argument 'RUN'."),
        (["--host", "box", "runs"], "--host before a command is for the app; put it after the command"),
        (["translate", "x", "--preset", "creativ"], "did you mean 'creative'?"),
    ],
)  # fmt: skip
def test_misuse_is_one_line_and_status_2(run: Run, args: list[str], sentence: str) -> None:
    ran = run(*args)
    assert ran.status == 2
    assert ran.out == ""
    assert ran.err.count("\n") == 1
    assert sentence in ran.err


def test_a_near_miss_of_a_model_is_suggested(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "home" / "checkpoints" / "letters"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    ran = run("translate", "x", "-m", "leters")
    assert (ran.status, ran.out) == (2, "")
    assert "did you mean letters?" in ran.err


def test_the_app_is_refused_without_a_terminal(run: Run) -> None:
    ran = run()
    assert ran.status == 2
    assert "needs a terminal" in ran.err


def test_completion_offers_commands_options_models_and_runs(spawn: Run, tmp_path: Path) -> None:
    for kind, name, file in (
        ("checkpoints", "letters", "config.json"),
        ("runs", "first-0101-0000", "config.toml"),
    ):
        (tmp_path / "home" / kind / name).mkdir(parents=True)
        (tmp_path / "home" / kind / name / file).write_text("")

    def complete(words: str) -> set[str]:
        ran = spawn(
            _TFM_TUI_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(len(words.split(" ")) - 1)
        )
        return {line.partition(",")[2] for line in ran.out.splitlines()}

    assert complete("tfm-tui tr") == {"translate", "train"}
    assert "--seed" in complete("tfm-tui translate --se")
    assert "letters" in complete("tfm-tui translate -m let")
    assert complete("tfm-tui attach fir") == {"first-0101-0000"}
    assert complete("tfm-tui translate --preset cre") == {"creative"}


def test_a_reader_that_leaves_is_no_error() -> None:
    process = subprocess.Popen([*EXECUTABLE, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 141


def test_a_sentence_stays_one_line_and_steers_no_terminal() -> None:
    assert one_line("no file a\nb\x1b[2Jc\x9b") == "no file a b\\x1b[2Jc\\x9b"
