"""``translate``: one text, streamed where a person reads it, or stdin line by line in batches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from tfm.tui.commands.lines import Line, LineReader, checked_text
from tfm.tui.commands.loading import DEFAULT_TRANSLATOR, Choice, check_length, load, model_options
from tfm.tui.commands.output import LiveLine, emit, json_option, say, to_terminal
from tfm.tui.commands.progress import Progress
from tfm.tui.commands.sampling import Sampling, sampling_options

if TYPE_CHECKING:
    from tfm.core.checkpoint import Checkpoint

BATCH_TOKENS = 4096  # source tokens sampled at once, padding included


class Search(NamedTuple):
    """How to translate: by beam search, or by sampling where ``sampling`` is there."""

    beam: int
    length_penalty: float
    sampling: Sampling | None
    max_tokens: int | None


@click.command()
@click.argument("text", required=False)
@model_options(default=DEFAULT_TRANSLATOR)
@click.option(
    "--beam",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Width of the beam search; 1 is greedy. Default: 5, unless a sampling option is given.",
)
@click.option(
    "--length-penalty",
    type=click.FloatRange(0.0, 10.0),
    default=1.0,
    show_default=True,
    help="Beam search divides scores by length to this power.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="End each translation after N tokens. Default: twice the source's tokens and 16.",
)
@sampling_options
@json_option
def translate(
    text: str | None, choice: Choice, beam: int | None, length_penalty: float, max_tokens: int | None,
    sampling: Sampling, as_json: bool,
) -> None:  # fmt: skip
    """Translate a text, or stdin line by line.

    For each line in there is one line out, in order; an empty line stays empty. Without sampling options it
    searches for the best translation, with one it samples. What cannot be translated ends the work with a
    sentence that names its line; the lines before it have been written by then.
    """
    if sampling.given and beam is not None:
        raise click.UsageError("--beam searches and the sampling options sample; give one or the other")
    if text is not None:
        text = checked_text(text)
    elif sys.stdin.isatty():
        raise ValueError("there is nothing to translate: give TEXT, or pipe in one sentence a line")
    search = Search(beam or 5, length_penalty, sampling if sampling.given else None, max_tokens)
    checkpoint = load(choice, "encoder-decoder")
    if search.sampling is not None:
        search.sampling.tell_seed()
    if text is None:
        _translate_lines(checkpoint, search, LineReader(sys.stdin.fileno()), as_json)
        return
    check_length(checkpoint, text, len(checkpoint.tokenizer.encode(text)) + 1, "the text")
    if to_terminal() and not as_json:
        _stream(checkpoint, search, text)
    else:
        [translation] = translate_texts(checkpoint, search, [text])
        _write(Line(1, text), translation, search, as_json)


# --------------------------------------------------------------------------- many lines
def _translate_lines(checkpoint: Checkpoint, search: Search, reader: LineReader, as_json: bool) -> None:
    with Progress("lines") as progress:
        for chunk in reader.chunks():
            progress.show(chunk[0].number - 1, reader.total)
            fitting, problem = _fitting(checkpoint, chunk)

            def done(n_done: int, before: int = chunk[0].number - 1) -> None:
                progress.show(before + n_done, reader.total)

            translations = translate_texts(checkpoint, search, [line.text for line in fitting], done)
            if to_terminal():
                progress.clear()
            for line, translation in zip(fitting, translations, strict=True):
                _write(line, translation, search, as_json)
            if problem is not None:
                raise problem
            progress.show(chunk[-1].number, reader.total)


def _fitting(checkpoint: Checkpoint, lines: list[Line]) -> tuple[list[Line], ValueError | None]:
    """The lines before the first one that is too long for the model, and what to say of that one."""
    encoded = checkpoint.tokenizer.encode_batch([line.text for line in lines])
    for index, (line, ids) in enumerate(zip(lines, encoded, strict=True)):
        try:
            check_length(checkpoint, line.text, len(ids) + 1, f"line {line.number}")
        except ValueError as error:
            return lines[:index], error
    return lines, None


def translate_texts(
    checkpoint: Checkpoint,
    search: Search,
    texts: Sequence[str],
    progress: Callable[[int], None] | None = None,
) -> list[str]:
    """The translation of each text as one line, in order; a blank text gives an empty one.

    ``progress`` is told now and then how many are done.
    """
    if search.sampling is not None:
        found = _sample(checkpoint, search, search.sampling, texts)
    else:
        from tfm.core.search import translate_batch

        found = translate_batch(
            checkpoint, texts, beam=search.beam, length_penalty=search.length_penalty,
            max_tokens=search.max_tokens, progress=progress,
        )  # fmt: skip
    return [as_line(translation) for translation in found]


def as_line(text: str) -> str:
    """A text as one line: a model may write line ends, and line n must stay the translation of line n."""
    return text.replace("\r\n", " ").replace("\n", " ").replace("\r", " ")


def _sample(checkpoint: Checkpoint, search: Search, sampling: Sampling, texts: Sequence[str]) -> list[str]:
    """Every text gets the same seed, so that a line comes out the same alone and among others."""
    from tfm.core.engine.protocol import Lane
    from tfm.core.generate import LaneFinished, generate

    translations = [""] * len(texts)
    for batch, n_tokens in _batches(checkpoint, texts):
        lanes = [Lane(prompt=texts[i], settings=sampling.settings, seed=sampling.seed) for i in batch]
        for event in generate(checkpoint, lanes, max_tokens=_limit(search, n_tokens), n_top=0):
            if isinstance(event, LaneFinished):
                translations[batch[event.lane]] = event.text
    return translations


def _batches(checkpoint: Checkpoint, texts: Sequence[str]) -> Iterator[tuple[list[int], int]]:
    """Indices of non-blank texts in batches of equal length in tokens, and that length.

    Equal, not like, because the limit on a translation follows from its source's length alone.
    """
    by_length: dict[int, list[int]] = {}
    for index, ids in enumerate(checkpoint.tokenizer.encode_batch(texts)):
        if texts[index].strip():
            by_length.setdefault(len(ids) + 1, []).append(index)
    for n_tokens, indices in by_length.items():
        size = max(1, BATCH_TOKENS // n_tokens)
        for begin in range(0, len(indices), size):
            yield indices[begin : begin + size], n_tokens


def _limit(search: Search, n_source: int) -> int:
    return search.max_tokens or 2 * n_source + 16


def _write(line: Line, translation: str, search: Search, as_json: bool) -> None:
    if not as_json:
        say(translation)
        return
    how: dict[str, Any] = {"beam": search.beam, "length_penalty": search.length_penalty}
    if search.sampling is not None:
        how = {"seed": search.sampling.seed, "settings": search.sampling.told()}
    emit({"line": line.number, "source": line.text, "translation": translation, **how})


# --------------------------------------------------------------------------- one text, before one's eyes
def _stream(checkpoint: Checkpoint, search: Search, text: str) -> None:
    limit = _limit(search, len(checkpoint.tokenizer.encode(text)) + 1)
    if search.sampling is not None:
        _stream_sample(checkpoint, search.sampling, text, limit)
    else:
        _stream_beam(checkpoint, search, text, limit)


def _stream_sample(checkpoint: Checkpoint, sampling: Sampling, text: str, limit: int) -> None:
    """Pieces of text as they become certain."""
    from tfm.core.engine.protocol import Lane
    from tfm.core.generate import TokenEvent, generate

    lane = Lane(prompt=text, settings=sampling.settings, seed=sampling.seed)
    try:
        for event in generate(checkpoint, [lane], max_tokens=limit, n_top=0):
            if isinstance(event, TokenEvent):
                say(as_line(event.piece), end="")
    finally:
        say()


def _stream_beam(checkpoint: Checkpoint, search: Search, text: str, limit: int) -> None:
    """The leading hypothesis, drawn over itself as it changes, and in the end the translation."""
    from tfm.core.search import BeamFinished, beam_search

    best, line = "", LiveLine()
    found = beam_search(
        checkpoint, [text], width=search.beam, length_penalty=search.length_penalty, max_tokens=limit
    )
    try:
        for event in found:
            best = as_line(event.hypotheses[0].text)
            if not isinstance(event, BeamFinished):
                line.show(best)
    finally:
        line.finish(best)
