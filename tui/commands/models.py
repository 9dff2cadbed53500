"""``models``: which checkpoints are there, and whether one is whole."""

from __future__ import annotations

import click

from tfm.tui.commands.output import emit, human_bytes, human_count, json_option, note, say, table


def complete_model(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The names of checkpoints that begin so, for the shell."""
    from tfm.core.catalog import list_models

    return [info.name for info in list_models() if info.name.startswith(incomplete)]


@click.command()
@click.option("--verify", metavar="MODEL", shell_complete=complete_model,
              help="Check one checkpoint's files against its manifest.")  # fmt: skip
@json_option
def models(verify: str | None, as_json: bool) -> int:
    """List the checkpoints, or verify one.

    There are the bundled ones, those under $TFM_HOME, and what training runs have come to.
    """
    if verify is not None:
        return _verify(verify, as_json)
    from tfm.core.catalog import checkpoint_home, list_models

    found = list_models()
    if as_json:
        for info in found:
            emit(info)
        return 0
    if not found:
        note(f"no checkpoints, neither bundled nor in {checkpoint_home() / 'checkpoints'}")
        return 0
    rows = [
        (
            info.name,
            info.family or "-",
            human_count(info.n_parameters) if info.n_parameters else "-",
            human_bytes(info.size_bytes) if info.size_bytes else "-",
            info.source,
            f"cannot be used: {info.problem}" if info.problem else info.summary,
        )
        for info in found
    ]
    say(table(rows, ("MODEL", "FAMILY", "PARAMETERS", "SIZE", "FROM", "WHAT")))
    return 0


def _verify(model: str, as_json: bool) -> int:
    """Exit status 0 where every file is what the manifest says, 1 where one is not."""
    from tfm.core.catalog import find_checkpoint
    from tfm.core.checkpoint import verify_checkpoint

    path = find_checkpoint(model)
    try:
        verify_checkpoint(path)
        problem = ""
    except ValueError as error:
        problem = str(error)
    if as_json:
        emit({"model": model, "path": str(path), "ok": not problem, "problem": problem})
    else:
        say(problem or f"{path}: every file is as its manifest says")
    return 1 if problem else 0
