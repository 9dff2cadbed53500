"""What every command prints with: results to stdout, everything else to stderr.

Text that a model or a file made is shown through :func:`say`, which makes it harmless where stdout is a
terminal and leaves it exact where it is a file or a pipe.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def json_option(function: F) -> F:
    """The ``--json`` flag, the same on every command."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")(function)


def to_terminal() -> bool:
    return sys.stdout.isatty()


def say(text: str = "", end: str = "\n") -> None:
    """Write text to stdout: harmless on a terminal, exact in a pipe; at once in both."""
    if to_terminal():
        data = (_harmless(text) + end).encode(sys.stdout.encoding or "utf-8", "replace")
    else:
        data = (text + end).encode("utf-8", "surrogateescape")
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def emit(record: Any) -> None:
    """Write one record (a dict or a msgspec struct) as one line of JSON."""
    import msgspec

    say(msgspec.json.encode(record).decode())


def note(text: str = "") -> None:
    """Write a line for the person, not for the pipe, to stderr."""
    print(_harmless(text), file=sys.stderr, flush=True)


def _harmless(text: str) -> str:
    from tfm.tui.safe_text import safe_text

    return safe_text(text, newlines=True)


class LiveLine:
    """One line of the terminal that is drawn over itself until it is final."""

    def __init__(self) -> None:
        self._live = os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")

    def show(self, text: str) -> None:
        """Its end, where it is wider than the screen: a wrapped line could not be drawn over."""
        from rich.cells import cell_len, chop_cells

        if not self._live:
            return
        width = max(2, shutil.get_terminal_size().columns - 1)
        safe = _harmless(text)
        if cell_len(safe) > width:
            safe = "…" + chop_cells(safe[::-1], width - 1)[0][::-1]
        self._write("\r" + safe + "\x1b[K")

    def finish(self, text: str) -> None:
        self._write(("\r\x1b[K" if self._live else "") + _harmless(text) + "\n")

    def _write(self, text: str) -> None:
        sys.stdout.buffer.write(text.encode(sys.stdout.encoding or "utf-8", "replace"))
        sys.stdout.buffer.flush()


def table(rows: Iterable[Sequence[str]], headers: Sequence[str]) -> str:
    """Columns aligned by the width their characters take on a terminal."""
    from rich.cells import cell_len

    lines = [list(headers), *(list(row) for row in rows)]
    widths = [max(cell_len(line[i]) for line in lines) for i in range(len(headers))]
    return "\n".join(
        "  ".join(
            cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def human_bytes(n: float) -> str:
    """``12.3 MB``: powers of 1000, as disks and downloads are counted."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if n < 1000 or unit == "TB":
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    raise AssertionError("unreachable")


def human_count(n: int) -> str:
    """``5.4M`` parameters, steps as they are."""
    for limit, unit in ((1_000_000_000, "B"), (1_000_000, "M"), (10_000, "k")):
        if n >= limit:
            return f"{n / (limit if unit != 'k' else 1000):.1f}{unit}"
    return str(n)


def human_seconds(seconds: float) -> str:
    """``1:02:03``."""
    whole = max(0, round(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
