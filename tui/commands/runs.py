"""``runs``, ``attach`` and ``stop``: training runs, read from and steered through their directories."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from tfm.tui.commands.output import emit, human_count, json_option, note, say, table, to_terminal

if TYPE_CHECKING:
    from tfm.train.run_dir import RunDir

UNLISTED = ("perplexity", "cer", "wer")  # a line is only so wide; --json has them


def complete_run(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The ids of runs that begin so, for the shell."""
    from tfm.train.run_dir import list_runs

    return [info.run for info in list_runs() if info.run.startswith(incomplete)]


@click.command()
@json_option
def runs(as_json: bool) -> None:
    """List the training runs, newest first."""
    from tfm.core.catalog import runs_home
    from tfm.train.run_dir import list_runs

    found = list_runs()
    if as_json:
        for info in found:
            emit(info)
        return
    if not found:
        note(f"no runs in {runs_home()}; start one with: tfm-tui train CONFIG")
        return
    rows = []
    for info in found:
        started = time.strftime("%Y-%m-%d %H:%M", time.localtime(info.started)) if info.started else "-"
        steps = f"{human_count(info.step)}/{human_count(info.total_steps)}" if info.total_steps else "-"
        best = "  ".join(
            f"{name} {_figure(value)}" for name, value in info.best.items() if name not in UNLISTED
        )
        rows.append((info.run, info.state, steps, started, info.owner or "-", best or "-"))
    say(table(rows, ("RUN", "STATE", "STEP", "STARTED", "TRAINER", "BEST")))


@click.command()
@click.argument("run", shell_complete=complete_run)
@click.option("--plain", is_flag=True, help="Print lines instead of opening the panel.")
@json_option
def attach(run: str, plain: bool, as_json: bool) -> int:
    """Watch a training run.

    Opens the panel on a terminal and prints plain lines elsewhere. Leaving does not stop the run.
    """
    from tfm.train.run_dir import RunDir
    from tfm.tui.commands.follow import follow

    directory = RunDir.open(run)
    if to_terminal() and not plain and not as_json:
        from tfm.tui.app import run_app

        return run_app(run=str(directory.path) if "/" in run else directory.id)
    return follow(directory, as_json=as_json, whole=False)


@click.command()
@click.argument("run", shell_complete=complete_run)
@click.option("--wait", type=click.FloatRange(min=0), default=120.0, show_default=True, metavar="SECONDS",
              help="How long to wait for the run to save and end; 0: only ask.")  # fmt: skip
@json_option
def stop(run: str, wait: float, as_json: bool) -> int:
    """Stop a training run at its next step; it saves first."""
    from tfm.train.control_inbox import ControlInbox
    from tfm.train.launch import require_running
    from tfm.train.launch import stop as stop_run
    from tfm.train.run_dir import RunDir

    directory = RunDir.open(run)
    try:
        if wait:
            ended = stop_run(directory, timeout=wait)
            message = f"run {directory.id}: {ended.reason} at step {ended.step:,}"
        else:
            require_running(directory)
            ControlInbox(directory).send("stop")
            message = f"run {directory.id} was asked to stop"
    except ValueError as error:  # it is not running, or it did not stop: the answer is no
        _tell(directory, str(error), as_json)
        return 1
    _tell(directory, message, as_json)
    return 1 if wait and directory.state() == "failed" else 0


def _tell(run: RunDir, sentence: str, as_json: bool) -> None:
    if as_json:
        saved = run.checkpoints()
        emit({
            "run": run.id, "state": run.state(), "message": sentence,
            "checkpoint": str(saved[-1]) if saved else "",
        })  # fmt: skip
    else:
        note(sentence)


def _figure(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.3f}"
