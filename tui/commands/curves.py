"""``curves``: what runs have told of themselves, as CSV, JSON or a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tfm.tui.commands.output import emit, json_option, note, say
from tfm.tui.commands.runs import complete_run

if TYPE_CHECKING:
    from tfm.tui.run_record import RunRecord


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", shell_complete=complete_run)
@click.option("--output", "-o", metavar="FILE", help="Write FILE.csv or FILE.svg, as its name ends. Without it: CSV on stdout.")  # fmt: skip  # noqa: E501
@click.option("--curve", "names", multiple=True, metavar="NAME", help="Only this one, such as loss, bleu, grad_norm; repeatable.")  # fmt: skip  # noqa: E501
@click.option("--axis", type=click.Choice(["step", "time", "tokens"]), default="step", show_default=True,
              help="What the picture is drawn over.")  # fmt: skip
@click.option("--smooth", type=click.FloatRange(0.0, 0.999), default=0.0, metavar="WEIGHT",
              help="Moving average of the picture's training curves, such as 0.9.")  # fmt: skip
@click.option("--log", "log", is_flag=True, help="A logarithmic axis in the picture, where it makes sense.")
@json_option
def curves(
    runs: tuple[str, ...], output: str | None, names: tuple[str, ...], axis: str, smooth: float, log: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Write the curves of runs to a file, or every point to stdout."""
    from tfm.tui import curve_export
    from tfm.tui.curves import BY_ID, MOST_RUNS, View, available

    records = [_read(run) for run in runs]
    unknown = [name for name in names if name not in BY_ID]
    if unknown:
        raise ValueError(f"there is no curve {unknown[0]!r}; there are {', '.join(BY_ID)}")
    kinds = [BY_ID[name] for name in dict.fromkeys(names)] or available(records)
    table = curve_export.to_csv(records, kinds)
    if as_json:
        for row in curve_export.rows(records, kinds):
            emit(dict(zip(curve_export.COLUMNS, row, strict=True)))
        return
    if output is None:
        say(table, end="")
        return
    path = Path(output).expanduser()
    if path.suffix not in (".csv", ".svg"):
        raise ValueError(f"--output takes a name that ends in .csv or .svg, not {output!r}")
    if path.suffix == ".svg":
        if len(records) > MOST_RUNS:
            raise ValueError(f"a picture holds {MOST_RUNS} runs at most; as CSV there may be more")
        view = View(axis="seconds" if axis == "time" else "tokens" if axis == "tokens" else "step",
                    smoothing=smooth, log=log)  # fmt: skip
        table = curve_export.to_svg(records, kinds, view)
    note(f"written: {curve_export.write_files(path.with_suffix(''), {path.suffix: table})}")


def _read(run: str) -> RunRecord:
    """Everything that a run's log holds now. Raises ValueError where there is no such run."""
    from tfm.train.event_log import EventReader
    from tfm.train.run_dir import RunDir
    from tfm.tui.run_record import RunRecord

    directory = RunDir.open(run)
    record, reader = RunRecord(directory.id), EventReader(directory.events_path)
    while lines := reader.poll():
        record.take(lines, reader.bad_lines)
    return record
