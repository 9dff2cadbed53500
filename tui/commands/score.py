"""``score``: how likely a model finds a text, token by token."""

from __future__ import annotations

import click

from tfm.tui.commands.lines import text_or_stdin
from tfm.tui.commands.loading import Choice, load, model_options
from tfm.tui.commands.output import emit, json_option, say, table


@click.command()
@click.argument("text", required=False)
@model_options()
@click.option("--source", default="", help="The sentence that TEXT translates (encoder-decoder).")
@json_option
def score(text: str | None, choice: Choice, source: str, as_json: bool) -> None:
    """Log-probability of each token of a text.

    Without TEXT, stdin is the text. Logarithms are natural; rank 1 is what the model would have
    chosen.
    """
    text = text_or_stdin(text)
    checkpoint = load(choice)
    from tfm.core.introspect import score as score_text

    result = score_text(checkpoint, text, source)
    if as_json:
        emit({
            "tokens": result.tokens, "logprob": result.logprob, "perplexity": result.perplexity,
            "n_tokens": len(result.tokens),
        })  # fmt: skip
        return
    rows = [
        (repr(token.piece), f"{token.logprob:.3f}", f"{token.entropy:.3f}", str(token.rank))
        for token in result.tokens
    ]
    say(table(rows, ("TOKEN", "LOG P", "ENTROPY", "RANK")))
    say(f"{len(rows)} tokens, log-probability {result.logprob:.3f}, perplexity {result.perplexity:.3f}")
