"""``generate``: go on writing from a prompt."""

from __future__ import annotations

import click

from tfm.tui.commands.lines import text_or_stdin
from tfm.tui.commands.loading import Choice, check_length, load, model_options
from tfm.tui.commands.output import emit, json_option, say, to_terminal
from tfm.tui.commands.sampling import Sampling, sampling_options


@click.command()
@click.argument("prompt", required=False)
@model_options()
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    metavar="N",
    help="Write at most N tokens.",
)
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text. Repeatable.")
@sampling_options
@json_option
def generate(
    prompt: str | None, choice: Choice, max_tokens: int, stop: tuple[str, ...], sampling: Sampling,
    as_json: bool,
) -> None:  # fmt: skip
    """Write on from a prompt.

    Without PROMPT, stdin is the prompt. The preset is "balanced" where none is given. What is
    printed is the continuation alone, piece by piece on a terminal.
    """
    prompt = text_or_stdin(prompt)
    sampling = sampling.or_preset("balanced")
    checkpoint = load(choice, "decoder-only")
    check_length(checkpoint, prompt, len(checkpoint.tokenizer.encode(prompt)) + 1, "the prompt")
    sampling.tell_seed()
    from tfm.core.engine.protocol import Lane
    from tfm.core.generate import LaneFinished, TokenEvent
    from tfm.core.generate import generate as decode

    live = to_terminal() and not as_json
    lane = Lane(prompt=prompt, settings=sampling.settings, seed=sampling.seed)
    for event in decode(checkpoint, [lane], max_tokens=max_tokens, stop=stop, n_top=0):
        if isinstance(event, TokenEvent):
            if live:
                say(event.piece, end="")
        elif isinstance(event, LaneFinished):
            if as_json:
                emit({
                    "prompt": prompt, "text": event.text, "reason": event.reason, "logprob": event.logprob,
                    "tokens": event.tokens, "seed": sampling.seed, "settings": sampling.told(),
                })  # fmt: skip
            else:
                say("" if live else event.text)
