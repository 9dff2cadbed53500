"""``steer``: ask something of a run that is going on, and wait for its trainer's answer.

Each action is one command in the run's control inbox. The trainer takes it between two steps and
acknowledges it as an event of the run, which is what is printed here.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import click

from tfm.tui.commands.output import emit, json_option, note, say
from tfm.tui.commands.runs import complete_run
from tfm.tui.commands.suggest import suggest

PATIENCE = 120.0  # seconds


class Asked(NamedTuple):
    """Of which run something is asked, how long to wait for the answer, and how to print it."""

    run: str
    wait: float
    as_json: bool


class ActionGroup(click.Group):
    """The actions in the order they are written below; a wrong one is told with what comes near."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self.commands and not ctx.resilient_parsing:
            hint = suggest(name, self.commands) or f"; there are {', '.join(self.commands)}"
            raise click.UsageError(f"there is no action {name!r}{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=ActionGroup,
    invoke_without_command=True,
    no_args_is_help=False,
    subcommand_metavar="ACTION [ARGS]...",
    epilog="To fork a run: tfm-tui train --from RUN@500. To end it: tfm-tui stop RUN.",
)
@click.argument("run", shell_complete=complete_run)
@click.pass_context
def steer(ctx: click.Context, run: str) -> None:
    """Ask something of a run that is going on.

    The trainer does it between two steps, and every answer is an event in the run's log.
    """
    if ctx.invoked_subcommand is None:
        raise click.UsageError(f"name what {run} shall do: {', '.join(steer.commands)}", ctx)
    ctx.obj = run


def action(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """An action of ``steer``, called with ``asked: Asked`` and its own arguments."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def command(ctx: click.Context, /, wait: float, as_json: bool, **values: Any) -> Any:
            return function(Asked(ctx.obj, wait, as_json), **values)

        wrapped = click.pass_context(command)
        wrapped = json_option(wrapped)
        wait = click.option(
            "--wait", type=click.FloatRange(min=0), default=PATIENCE, show_default=True, metavar="SECONDS",
            help="How long to wait for the trainer's answer; 0: only ask.",
        )  # fmt: skip
        return steer.command(name)(wait(wrapped))

    return decorate


@action("pause")
def pause(asked: Asked) -> int:
    """Wait before the next step until told to go on."""
    return _ask(asked, "pause", {})


@action("resume")
def resume(asked: Asked) -> int:
    """Go on after a pause."""
    return _ask(asked, "resume", {})


@action("save")
def save(asked: Asked) -> int:
    """Write a checkpoint now."""
    return _ask(asked, "save", {})


@action("evaluate")
def evaluate(asked: Asked) -> int:
    """Score the validation set now, and show samples."""
    return _ask(asked, "evaluate", {})


@action("learning-rate")
@click.argument("value", metavar="RATE|schedule")
@click.option("--steps", type=click.IntRange(min=1), help="For so many steps; else to the end of the run.")
def learning_rate(asked: Asked, value: str, steps: int | None) -> int:
    """Change the rate; `schedule` gives the config's back."""
    args: dict[str, Any] = {}
    if value != "schedule":
        try:
            args["value"] = float(value)
        except ValueError:
            raise click.BadParameter(f"{value!r} is neither a number, such as 5e-4, nor 'schedule'") from None
    if steps is not None:
        args["steps"] = steps
    return _ask(asked, "learning_rate", args)


@action("bookmark")
@click.argument("name")
def bookmark(asked: Asked, name: str) -> int:
    """Write a checkpoint and keep it under a name."""
    return _ask(asked, "bookmark", {"name": name})


@action("rollback")
@click.argument("checkpoint", default="", metavar="[STEP|BOOKMARK|best]")
def rollback(asked: Asked, checkpoint: str) -> int:
    """Go back to a checkpoint, exactly; without one, to the newest."""
    return _ask(asked, "rollback", {"name": checkpoint} if checkpoint else {})


@action("prompts")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option("--reset", is_flag=True, help="Those of the config again.")
def prompts(asked: Asked, texts: tuple[str, ...], reset: bool) -> int:
    """Change what is sampled: each TEXT, or each line of stdin."""
    if reset and texts:
        raise click.UsageError("either name prompts or --reset them")
    if not texts and not reset:
        if sys.stdin.isatty():
            raise click.UsageError("name the prompts, give them on stdin one a line, or --reset them")
        texts = tuple(line for line in sys.stdin.read().splitlines() if line.strip())
        if not texts:
            raise click.UsageError("there is no prompt on stdin; --reset takes those of the config")
    return _ask(asked, "prompts", {"texts": list(texts)})


@action("stop")
def stop(asked: Asked) -> int:
    """Save and end; `tfm-tui stop` also waits until it has."""
    return _ask(asked, "stop", {})


def _ask(asked: Asked, command: str, args: dict[str, Any]) -> int:
    """Exit status 0 where it was done, 1 where the trainer refused or there is none."""
    from tfm.train.control_inbox import ControlInbox
    from tfm.train.events import CommandDone, Evaluated, RolledBack, Samples
    from tfm.train.launch import ask, require_running
    from tfm.train.run_dir import RunDir
    from tfm.tui.run_lines import Printer

    name, wait, as_json = asked
    run, printer = RunDir.open(name), Printer()
    try:
        if not wait:
            require_running(run)
            command_id = ControlInbox(run).send(command, args)
            if as_json:
                emit({"run": run.id, "command": command, "args": args, "command_id": command_id})
            else:
                note(f"run {run.id} was asked: {command}")
            return 0
        for event in ask(run, command, args, wait):
            told = isinstance(event, CommandDone | Evaluated | Samples | RolledBack)
            if told and as_json:
                emit(event)
            elif told:
                for line in printer.lines(event):
                    say(line.strip())
            if isinstance(event, CommandDone):
                return 0 if event.ok else 1
        raise ValueError(f"run {run.id} ended before it answered {command!r}")
    except ValueError as error:
        if as_json:
            emit({"run": run.id, "command": command, "ok": False, "message": str(error)})
        else:
            note(str(error))
        return 1
