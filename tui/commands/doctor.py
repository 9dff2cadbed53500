"""``doctor``: what this machine and this terminal can do, and what to change."""

from __future__ import annotations

import click

from tfm.tui.commands.output import emit, json_option, say

MARKS = {"ok": "ok", "advice": "--", "problem": "!!"}


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """Look at this machine and terminal, and say what to change.

    Exit status 1 where something will not work; advice alone leaves it 0.
    """
    from tfm.tui.commands.checks import all_checks

    broken = 0
    for check in all_checks():
        broken += check.state == "problem"
        if as_json:
            emit(check)
            continue
        say(f"{MARKS[check.state]}  {check.check:<14}  {check.value}")
        if check.change:
            say(f"{'':<20}-> {check.change}")
    return 1 if broken else 0
