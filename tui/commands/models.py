"""``models``: which checkpoints are there, and whether one is whole."""

from __future__ import annotations

import click

from tfm.tui.commands.output import emit, human_bytes, human_count, json_option, note, say, table
from tfm.tui.commands.progress import Progress


def complete_model(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The names of checkpoints that begin so, for the shell."""
    from tfm.core.catalog import list_models

    return [info.name for info in list_models() if info.name.startswith(incomplete)]


@click.command()
@click.option("--verify", metavar="MODEL", shell_complete=complete_model,
              help="Check one checkpoint's files against its manifest.")  # fmt: skip
@click.option("--compare", metavar="MODEL MODEL", nargs=2, shell_complete=complete_model,
              help="Show two configs side by side, what differs first.")  # fmt: skip
@click.option("--card", metavar="MODEL", shell_complete=complete_model, help="Show one checkpoint's card.")
@json_option
def models(verify: str | None, compare: tuple[str, str] | None, card: str | None, as_json: bool) -> int:
    """List the checkpoints, verify one, or compare two.

    There are the bundled ones, those under $TFM_HOME, and what training runs have come to.
    """
    if verify is not None:
        return _verify(verify, as_json)
    if compare is not None:
        return _compare(*compare, as_json)
    if card is not None:
        return _card(card, as_json)
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


def _compare(one: str, other: str, as_json: bool) -> int:
    """Exit status 0 where the two configs are the same, 1 where they differ."""
    import msgspec

    from tfm.core.catalog import find_checkpoint, read_small
    from tfm.core.compare import compare
    from tfm.core.config import ModelConfig

    def config(model: str) -> dict[str, object]:
        path = find_checkpoint(model) / "config.json"
        fields: dict[str, object] = msgspec.to_builtins(ModelConfig.from_json(read_small(path), str(path)))
        return fields

    pairs = compare(config(one), config(other))
    differ = [pair for pair in pairs if pair.differs]
    if as_json:
        for pair in pairs:
            emit({"field": pair.field, "one": pair.one, "other": pair.other, "differs": pair.differs})
    else:
        rows = [("*" if pair.differs else "", *pair) for pair in pairs]
        say(table(rows, ("", "FIELD", one, other)))
        note(f"{len(differ)} of {len(pairs)} fields differ")
    return 1 if differ else 0


def _card(model: str, as_json: bool) -> int:
    from tfm.core.catalog import describe, find_checkpoint, read_card

    path = find_checkpoint(model)
    text = read_card(path)
    if as_json:
        emit({"model": model, "path": str(path), "info": describe(path), "card": text})
    elif text:
        say(text, end="")
    else:
        note(f"{path} has no card")
    return 0 if text else 1


def _verify(model: str, as_json: bool) -> int:
    """Exit status 0 where every file is what the manifest says, 1 where one is not."""
    from tfm.core.catalog import find_checkpoint
    from tfm.core.checkpoint import verify_checkpoint

    path = find_checkpoint(model)
    try:
        with Progress("bytes") as bar:
            verify_checkpoint(path, bar.show)
        problem = ""
    except ValueError as error:
        problem = str(error)
    if as_json:
        emit({"model": model, "path": str(path), "ok": not problem, "problem": problem})
    else:
        say(problem or f"{path}: every file is as its manifest says")
    return 1 if problem else 0
