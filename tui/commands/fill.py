"""``fill``: what may stand in the gaps of a text."""

from __future__ import annotations

import click

from tfm.tui.commands.lines import text_or_stdin
from tfm.tui.commands.loading import DEFAULT_FILLER, Choice, load, model_options
from tfm.tui.commands.output import emit, json_option, say, table


@click.command()
@click.argument("text", required=False)
@model_options(default=DEFAULT_FILLER)
@click.option("--top", "-n", type=click.IntRange(1, 1000), default=5, show_default=True,
              help="How many candidates for each gap.")  # fmt: skip
@json_option
def fill(text: str | None, choice: Choice, top: int, as_json: bool) -> None:
    """Fill each [MASK] in a text.

    Without TEXT, stdin is the text.
    """
    text = text_or_stdin(text)
    checkpoint = load(choice, "encoder-only")
    from tfm.core.introspect import fill as fill_masks

    pieces, masks = fill_masks(checkpoint, text, top)
    if as_json:
        emit({"pieces": pieces, "masks": masks})
        return
    rows = [
        (str(number), candidate.piece.strip(), f"{candidate.final:.3f}")
        for number, mask in enumerate(masks, 1)
        for candidate in mask.candidates
    ]
    say(table(rows, ("MASK", "TOKEN", "PROBABILITY")))
