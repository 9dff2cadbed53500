"""``train``: start a trainer, a process of its own, and watch it."""

from __future__ import annotations

import click

from tfm.tui.commands.output import emit, json_option, note, say
from tfm.tui.commands.runs import complete_run


def _changes(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Reads ``section.key=value`` texts."""
    found: dict[str, str] = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"{text!r} is not section.key=value, such as optim.learning_rate=1e-3")
        found[key.strip()] = value.strip()
    return found


@click.command()
@click.argument("config", required=False, type=click.Path())
@click.option("--set", "changes", metavar="A.B=C", multiple=True, callback=_changes,
              help="Change one key of the config. Repeatable.")  # fmt: skip
@click.option("--detach", is_flag=True, help="Start it and return at once.")
@click.option(
    "--resume", metavar="RUN", shell_complete=complete_run, help="Go on with a run from its last checkpoint."
)
@json_option
def train(
    config: str | None, changes: dict[str, str], detach: bool, resume: str | None, as_json: bool
) -> int:
    """Train the model that a TOML file describes.

    The trainer is a process of its own: neither Ctrl+C here nor the loss of this terminal stops it, and
    `tfm-tui stop RUN` does. Without --detach its progress is printed, one line a report.
    """
    if config is None and resume is None:
        raise click.UsageError("give CONFIG, to start a run, or --resume RUN, to go on with one")
    from tfm.train.launch import start_detached
    from tfm.tui.commands.follow import follow

    run = start_detached(config, changes, resume)
    if detach:
        if as_json:
            emit({"run": run.id, "path": str(run.path)})
        else:
            say(run.id)
            note(f"training in {run.path}: tfm-tui attach {run.id} shows it, tfm-tui stop {run.id} ends it")
        return 0
    note(f"run {run.id} in {run.path}; Ctrl+C leaves it running")
    return follow(run, as_json=as_json, whole=resume is None)
