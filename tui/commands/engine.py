"""``engine``: the process that computes. The app starts it, here or on another machine."""

from __future__ import annotations

import click


@click.command()
def engine() -> None:
    """Speak the engine's protocol on stdin and stdout.

    JSON lines: requests come in, events go out. The app starts this by itself; run it by hand to script it
    or to look at the protocol.
    """
    from tfm.core.engine.server import main
    from tfm.train.services import run_services

    main(run_services())
