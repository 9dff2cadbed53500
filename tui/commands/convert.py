"""``import`` and ``export``: published checkpoints in, ours out."""

from __future__ import annotations

from pathlib import Path

import click

from tfm.tui.commands.models import complete_model
from tfm.tui.commands.output import emit, human_bytes, human_count, json_option, note
from tfm.tui.commands.progress import Progress


@click.command("import")
@click.argument("source", metavar="SRC")
@click.argument("name", metavar="NAME")
@click.option("--from", "source_language", metavar="LANG", help="The language to translate from.")
@click.option("--to", "target_language", metavar="LANG", help="The language to translate into.")
@click.option("--replace", is_flag=True, help="Take the place of a checkpoint of this name.")
@json_option
def import_(
    source: str,
    name: str,
    source_language: str | None,
    target_language: str | None,
    replace: bool,
    as_json: bool,
) -> None:
    """Import a published checkpoint.

    SRC is a Hugging Face folder, a GGUF file or a hub id, and becomes the checkpoint NAME under $TFM_HOME.
    The families are GPT-2, Llama, Mistral, Qwen2, Qwen3, BERT, Marian and M2M100/NLLB. --from and --to are
    for models of many languages, such as --from eng_Latn --to deu_Latn.
    """
    from tfm.core.catalog import describe, new_checkpoint

    destination = new_checkpoint(name)
    if destination.exists() and not replace:
        raise ValueError(f"there is a checkpoint {name} already; choose another name, or add --replace")
    from tfm.core.convert.hub import import_any

    with Progress("bytes") as bar:
        path = import_any(
            source,
            destination,
            source_language=source_language,
            target_language=target_language,
            progress=bar.show,
        )
    info = describe(path)
    if as_json:
        emit(info)
    else:
        note(f"{name}: {info.family}, {human_count(info.n_parameters)} parameters, "
             f"{human_bytes(info.size_bytes)} in {path}")  # fmt: skip


@click.command("export")
@click.argument("model", metavar="MODEL", shell_complete=complete_model)
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
@click.option(
    "--to", "layout", type=click.Choice(["hf"]), default="hf", show_default=True, help="The layout to write."
)
@json_option
def export(model: str, destination: Path, layout: str, as_json: bool) -> None:
    """Export a checkpoint for other programs.

    DEST becomes a Hugging Face folder, in the layout of the published family which has exactly this
    architecture.
    """
    from tfm.core.catalog import find_checkpoint
    from tfm.core.convert.huggingface_out import export_folder

    with Progress("bytes") as bar:
        exported = export_folder(find_checkpoint(model), destination, progress=bar.show)
    if as_json:
        emit({"model": model, "path": str(exported.path), "architecture": exported.architecture})
    else:
        note(f"{exported.path}: {exported.architecture}, {human_bytes(exported.n_bytes)}")
