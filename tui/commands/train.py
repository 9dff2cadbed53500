"""``train``: start a trainer, a process of its own, and watch it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tfm.tui.commands.output import emit, json_option, note, say
from tfm.tui.commands.runs import complete_run
from tfm.tui.starting import changed

if TYPE_CHECKING:
    from tfm.train.run_dir import RunDir


def _changes(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Reads ``section.key=value`` texts."""
    try:
        return dict(map(changed, values))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("config", required=False, type=click.Path())
@click.option("--set", "changes", metavar="A.B=C", multiple=True, callback=_changes,
              help="Change one key of the config. Repeatable.")  # fmt: skip
@click.option("--detach", is_flag=True, help="Start it and return at once.")
@click.option(
    "--resume", metavar="RUN", shell_complete=complete_run, help="Go on with a run from its last checkpoint."
)
@click.option(
    "--from",
    "fork",
    metavar="RUN[@CHECKPOINT]",
    shell_complete=complete_run,
    help="A new run that goes on from a checkpoint of another: its newest, a step, best, or a bookmark.",
)
@click.option(
    "--nproc",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    help="Train with N processes on this machine, each on a GPU of its own where there are any.",
)
@json_option
def train(
    config: str | None,
    changes: dict[str, str],
    detach: bool,
    resume: str | None,
    fork: str | None,
    nproc: int,
    as_json: bool,
) -> int:
    """Train the model that a TOML file describes.

    The trainer is a process of its own: neither Ctrl+C here nor the loss of this terminal stops it, and
    `tfm-tui stop RUN` does. Without --detach its progress is printed, one line a report.

    Under torchrun this is one of the processes that train, on one machine or several, and stays in the
    foreground; the first of them prints. docs/distributed.md has examples.
    """
    if config is None and resume is None and fork is None:
        raise click.UsageError(
            "give CONFIG, to start a run, --resume RUN, to go on with one, or --from RUN, to fork one"
        )
    from tfm.train.launch import start_detached
    from tfm.train.workers import under_torchrun
    from tfm.tui.commands.follow import follow

    if fork is not None and (resume is not None or config is not None):
        raise click.UsageError("--from goes on with the config of its run; change keys of it with --set")
    if under_torchrun():
        if detach or nproc > 1 or fork is not None:
            raise click.UsageError(
                "torchrun starts the processes and stays with them: no --detach, no --nproc, no --from"
            )
        return _with_others(config, changes, resume, as_json)
    if fork is not None:
        config, changes, resume = None, {}, str(_fork(fork, changes).path)
    run = start_detached(config, changes, resume, nproc=nproc)
    if detach:
        if as_json:
            emit({"run": run.id, "path": str(run.path)})
        else:
            say(run.id)
            note(f"training in {run.path}: tfm-tui attach {run.id} shows it, tfm-tui stop {run.id} ends it")
        return 0
    note(f"run {run.id} in {run.path}; Ctrl+C leaves it running")
    return follow(run, as_json=as_json, whole=resume is None)


def _fork(name: str, changes: dict[str, str]) -> RunDir:
    """The new run that ``RUN`` or ``RUN@CHECKPOINT`` is forked into."""
    from tfm.train.forking import fork
    from tfm.train.run_dir import RunDir

    run, _, which = name.rpartition("@") if "@" in name else (name, "", "")
    return fork(RunDir.open(run), which, changes)


def _with_others(config: str | None, changes: dict[str, str], resume: str | None, as_json: bool) -> int:
    """Train as one of the processes of torchrun; the first one tells what happens."""
    from tfm.train.events import RunEnded
    from tfm.train.launch import run_with_others
    from tfm.tui.run_lines import Printer

    printer, failed = Printer(), False
    for event in run_with_others(config, changes, resume):
        failed = isinstance(event, RunEnded) and event.reason == "failed"
        if as_json:
            emit(event)
        else:
            for line in printer.lines(event):
                say(line)
    return 1 if failed else 0
