"""``eval``: how good a model is on a test set."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tfm.tui.commands.loading import Choice, load, model_options, precision_of
from tfm.tui.commands.output import emit, json_option, say
from tfm.tui.commands.progress import Progress

if TYPE_CHECKING:
    from tfm.core.checkpoint import Checkpoint


@click.command("eval")
@model_options()
@click.option("--source", type=click.Path(), help="Sentences to translate, one a line; .gz is read as it is.")
@click.option("--target", type=click.Path(), help="Their translations, line for line.")
@click.option(
    "--tokenized-target",
    type=click.Path(),
    help="Translations made ready for the tokenised BLEU; default: lc-tok beside --target, "
    "else made from --target by the Moses rules.",
)
@click.option("--text", type=click.Path(), help="Plain text to score, for a model that does not translate.")
@click.option("--beam", type=click.IntRange(1, 64), default=5, show_default=True, help="Width; 1 is greedy.")
@click.option(
    "--length-penalty",
    type=click.FloatRange(0.0, 10.0),
    default=1.0,
    show_default=True,
    help="Scores are divided by length to this power.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The first N lines only.")
@click.option("--output", type=click.Path(dir_okay=False), help="Write the translations into this file.")
@json_option
def evaluate(
    choice: Choice,
    source: str | None,
    target: str | None,
    tokenized_target: str | None,
    text: str | None,
    beam: int,
    length_penalty: float,
    limit: int | None,
    output: str | None,
    as_json: bool,
) -> None:
    """Measure a model on a test set.

    BLEU, chrF, error rates, perplexity and accuracy. A model that translates needs --source and --target;
    the others need --text.
    """
    if text is None and (source is None or target is None):
        raise click.UsageError("give --source and --target, for a model that translates, or --text")
    if text is not None and (source or target or tokenized_target or output):
        raise click.UsageError("--text goes without --source, --target, --tokenized-target and --output")
    started = time.monotonic()
    if text is not None:
        result = _on_text(choice, text, limit)
    else:
        assert source is not None and target is not None
        search = {"beam": beam, "length_penalty": length_penalty}
        result = _on_pairs(choice, source, target, tokenized_target, limit, output, search)
    result["seconds"] = round(time.monotonic() - started, 3)
    if as_json:
        emit(result)
    else:
        _show(result)


def _on_text(choice: Choice, text: str, limit: int | None) -> dict[str, Any]:
    from tfm.train.corpus_files import read_lines

    lines = [line for line in read_lines(text)[:limit] if line.strip()]
    checkpoint = load(choice, "decoder-only", "encoder-only")
    return _about(choice, checkpoint) | {"text": text} | _token_scores(checkpoint, lines)


def _on_pairs(
    choice: Choice, source: str, target: str, tokenized_target: str | None, limit: int | None,
    output: str | None, search: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    import msgspec

    from tfm.train.corpus_files import check_parallel, read_lines, read_parallel
    from tfm.train.evaluate import translation_scores

    # Everything a user can get wrong is looked at before the minutes of work begin.
    pairs = read_parallel(source, target)
    prepared = tokenized_target or prepared_reference(target)
    tokenized = None
    if prepared is not None:
        tokenized = read_lines(prepared)
        check_parallel(target, len(pairs), prepared, len(tokenized))
        tokenized = tokenized[:limit]
    pairs = pairs[:limit]
    if not pairs:
        raise ValueError(f"{source} and {target} are empty: there are no sentences to translate")
    with open(output or os.devnull, "w", encoding="utf-8", newline="\n") as writing:
        checkpoint = load(choice, "encoder-decoder")
        translations = _translate(checkpoint, [source_text for source_text, _ in pairs], **search)
        writing.writelines(line + "\n" for line in translations)
    language = _language(checkpoint, target)
    scores = translation_scores(translations, [reference for _, reference in pairs], language, tokenized)
    return (
        _about(choice, checkpoint)
        | {"source": source, "target": target, "tokenized_target": str(prepared or ""), **search}
        | msgspec.structs.asdict(scores)
        | _token_scores(checkpoint, pairs)
    )


def _translate(checkpoint: Checkpoint, sources: list[str], beam: int, length_penalty: float) -> list[str]:
    """One line for each source, in order; an empty source stays empty."""
    from tfm.tui.commands.translate import Search, translate_texts

    with Progress("sentences") as progress:
        progress.show(0, len(sources))
        return translate_texts(
            checkpoint,
            Search(beam, length_penalty, sampling=None, max_tokens=None),
            sources,
            lambda n_done: progress.show(n_done, len(sources)),
        )


def prepared_reference(target: str | Path) -> Path | None:
    """``lc-tok/NAME.lc.norm.tok.LANG`` beside ``NAME.LANG``: Multi30k's own tokenised references."""
    path = Path(target).expanduser()
    name, _, language = path.name.removesuffix(".gz").rpartition(".")
    beside = path.parent / "lc-tok" / f"{name}.lc.norm.tok.{language}"
    found = (beside, beside.with_name(beside.name + ".gz"))
    return next((candidate for candidate in found if candidate.is_file()), None)


def _language(checkpoint: Checkpoint, target: str) -> str:
    """Two letters, for the Moses rules: the target file's ending, else what the checkpoint was trained on."""
    ending = Path(target).name.removesuffix(".gz").rpartition(".")[2]
    if len(ending) == 2 and ending.isalpha():
        return ending.lower()
    languages = checkpoint.training.get("languages") or [""]
    return next((str(code) for code in languages[-1:] if len(str(code)) == 2), "")


def _about(choice: Choice, checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "model": choice.model, "path": str(checkpoint.path), "device": str(checkpoint.device),
        "precision": precision_of(checkpoint),
    }  # fmt: skip


def _token_scores(checkpoint: Checkpoint, examples: list[tuple[str, str]] | list[str]) -> dict[str, Any]:
    import msgspec

    from tfm.train.evaluate import perplexity_and_accuracy

    return msgspec.structs.asdict(perplexity_and_accuracy(checkpoint, examples))


def _show(result: dict[str, Any]) -> None:
    say(f"{result['model']}, {result['device']} {result['precision']}, {result['seconds']:.1f} s")
    if "bleu" in result:
        prepared = result["tokenized_target"] or "made from --target by the Moses rules"
        say(f"{result['n_sentences']:,} sentences, beam {result['beam']}")
        say(f"BLEU            {result['bleu']:6.2f}  cased, sacreBLEU 13a    {result['bleu_signature']}")
        say(f"chrF            {result['chrf']:6.2f}                          {result['chrf_signature']}")
        say(f"BLEU tokenised  {result['tokenized_bleu']:6.2f}  lower-cased, Moses      "
            f"{result['tokenized_bleu_signature']}")  # fmt: skip
        say(f"                        against {prepared}")
        say(f"CER             {result['cer']:6.3f}")
        say(f"WER             {result['wer']:6.3f}")
    say(f"accuracy        {result['accuracy']:6.3f}  of {result['n_tokens']:,} tokens")
    say(f"perplexity      {result['perplexity']:6.2f}  loss {result['loss']:.4f} nats a token")
    if result["n_left_out"]:
        say(f"{result['n_left_out']} examples are too long for the model and not in accuracy and perplexity")
