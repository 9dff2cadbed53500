"""``tfm-tui``: the command line.

This module knows the names of the commands and one line about each. A command's own module, and
whatever heavy thing it needs, is imported only when that command runs, so ``--help``, completion
and the start of the app stay fast.

Exit status: 0 done; 1 it ran and the answer is no; 2 bad input, told in one sentence on stderr;
130 interrupted; 141 the reader of our output went away.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import NamedTuple

import click

from tfm.tui.commands.suggest import suggest


class Entry(NamedTuple):
    """Where a command lives and what the overview says about it."""

    module: str
    attribute: str
    help: str
    section: str


COMMANDS: dict[str, Entry] = {
    "translate": Entry("translate", "translate", "Translate a text, or stdin line by line.", "Inference"),
    "generate": Entry("generate", "generate", "Write on from a prompt.", "Inference"),
    "chat": Entry("chat", "chat", "Talk with a model.", "Inference"),
    "fill": Entry("fill", "fill", "Fill each [MASK] in a text.", "Inference"),
    "score": Entry("score", "score", "Log-probability of each token of a text.", "Inference"),
    "train": Entry("train", "train", "Train the model that a TOML file describes.", "Training"),
    "runs": Entry("runs", "runs", "List the training runs, newest first.", "Training"),
    "attach": Entry("runs", "attach", "Watch a training run.", "Training"),
    "steer": Entry("steer", "steer", "Ask something of a run that is going on.", "Training"),
    "stop": Entry("runs", "stop", "Stop a training run at its next step; it saves first.", "Training"),
    "curves": Entry(
        "curves", "curves", "Write the curves of runs to a file, or every point to stdout.", "Training"
    ),
    "eval": Entry("evaluate", "evaluate", "Measure a model on a test set.", "Checkpoints"),
    "models": Entry("models", "models", "List the checkpoints, verify one, or compare two.", "Checkpoints"),
    "import": Entry("convert", "import_", "Import a published checkpoint.", "Checkpoints"),
    "export": Entry("convert", "export", "Export a checkpoint for other programs.", "Checkpoints"),
    "pull": Entry("pull", "pull", "Fetch a published checkpoint.", "Checkpoints"),
    "doctor": Entry(
        "doctor", "doctor", "Look at this machine and terminal, and say what to change.", "Machine"
    ),
    "keys": Entry("keys", "keys", "Show the keys of the app, as keys.toml changes them.", "Machine"),
    "engine": Entry("engine", "engine", "Speak the engine's protocol on stdin and stdout.", "Machine"),
}

EPILOG = """\
MODEL is the name of a bundled checkpoint, a name under $TFM_HOME, a training run (RUN, RUN@best,
RUN@STEP, RUN@BOOKMARK), or a path.

Completion of commands, options, models and runs: put one of these into your shell's start-up file.

\b
  bash  eval "$(_TFM_TUI_COMPLETE=bash_source tfm-tui)"
  zsh   eval "$(_TFM_TUI_COMPLETE=zsh_source tfm-tui)"
  fish  _TFM_TUI_COMPLETE=fish_source tfm-tui | source
"""


COMPLETE = "_TFM_TUI_COMPLETE"


class LazyGroup(click.Group):
    """A group whose commands are imported when they are invoked, not when they are listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(f"tfm.tui.commands.{entry.module}"), entry.attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            raise click.UsageError(f"there is no command {name!r}{suggest(name, COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section in dict.fromkeys(entry.section for entry in COMMANDS.values()):
            with formatter.section(section):
                formatter.write_dl(
                    [(name, entry.help) for name, entry in COMMANDS.items() if entry.section == section]
                )


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"tfm-tui {version('tfm-tui')}")
    ctx.exit()


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--host", metavar="USER@BOX", help="Run the engine on this machine, over ssh.")
@click.option(
    "--remote-command",
    metavar="COMMAND",
    help="What tfm-tui is called on that machine, where ssh does not find it.",
)
@click.option("--model", "-m", metavar="MODEL", help="The checkpoint to begin with.")
@click.option("--mode", metavar="MODE", help="The mode to begin in, such as train.")
@click.option(
    "--plain",
    is_flag=True,
    help="Line by line, without drawing: for screen readers, dumb terminals and pipes.",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
              help="Show the version.")  # fmt: skip
@click.pass_context
def cli(
    ctx: click.Context,
    host: str | None,
    remote_command: str | None,
    model: str | None,
    mode: str | None,
    plain: bool,
) -> int | None:
    """A terminal lab for Transformers. Without a command it opens the app."""
    if ctx.invoked_subcommand is not None:
        names = ("host", "remote_command", "model", "mode")
        given = [f"--{name.replace('_', '-')}" for name in names if ctx.params[name] is not None]
        given += ["--plain"] * plain
        if given:
            raise click.UsageError(f"{given[0]} before a command is for the app; put it after the command")
        return None
    if plain:
        from tfm.tui.plain.dialogue import run_plain

        return run_plain(host, remote_command, model, mode)
    gc.disable()  # until the first paint: collections find nothing to free while modules are read
    from tfm.tui.app import run_app

    return run_app(host=host, model=model, mode=mode, remote_command=remote_command)


def one_line(text: object) -> str:
    """An error message as one line without terminal controls, whatever a file name held."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in line)


def explain(error: Exception) -> str | None:
    """The sentence that tells a user what went wrong, or None where the error is ours."""
    if isinstance(error, click.NoSuchOption):
        near = f"; did you mean {error.possibilities[0]!r}?" if error.possibilities else ""
        return f"there is no option {error.option_name!r}{near}"
    if isinstance(error, click.ClickException):
        return error.format_message()
    from tfm.core.engine import errors

    kind, sentence = errors.explain(error)
    return None if kind == "internal" else sentence


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status. Never lets a user's mistake become a traceback."""
    try:
        status = _invoke(sys.argv[1:] if args is None else list(args))
        sys.stdout.flush()
        return status
    except (KeyboardInterrupt, click.Abort):
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Python flushes stdout once more at exit; give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except Exception as error:
        sentence = None if os.environ.get("TFM_TRACEBACK") else explain(error)
        if sentence is None:
            raise
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "tfm-tui"
        print(f"{where}: {one_line(sentence)}", file=sys.stderr)
        return 2


def _invoke(args: list[str]) -> int:
    """What ``click.Command.main`` does, but for its own ideas of exit status and of error messages."""
    wish = os.environ.get(COMPLETE)
    if wish:
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, "tfm-tui", COMPLETE, wish)
    try:
        with cli.make_context("tfm-tui", args) as context:
            status = cli.invoke(context)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    return status if isinstance(status, int) else 0


if __name__ == "__main__":
    sys.exit(main())
