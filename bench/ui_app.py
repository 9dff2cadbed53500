"""The app for ``bench ui``: the real one, with an engine that is named and sampling that does not end.

    python -m bench.ui_app ENGINE-COMMAND...

``BENCH_MODEL`` is the model to load. ``BENCH_BANNED`` bans token ids (the end of sentence), so that a
real model writes until its length is reached. ``BENCH_AGAIN``: begin again, with another seed,
whenever it ends.
"""

from __future__ import annotations

import os
import sys

import msgspec

from tfm.core.sampling.settings import PRESETS
from tfm.tui.app import TfmApp
from tfm.tui.client import LOCAL_ENGINE
from tfm.tui.screens.translate import TranslateScreen


def main() -> int:
    app = TfmApp(tuple(sys.argv[1:]) or LOCAL_ENGINE, model=os.environ.get("BENCH_MODEL") or None)
    app.remember(msgspec.structs.replace(app.settings, welcomed=True))  # by somebody who has used it before
    banned = tuple(int(token) for token in os.environ.get("BENCH_BANNED", "").split(",") if token)

    def set_up() -> None:
        screen = app.screen
        assert isinstance(screen, TranslateScreen)
        if banned:
            settings = msgspec.structs.replace(PRESETS["balanced"], banned=banned)
            screen.decode_with(msgspec.structs.replace(screen.panel.decoding, settings=settings))
        if os.environ.get("BENCH_AGAIN"):
            screen.set_interval(0.02, lambda: again(screen))

    app.call_later(lambda: app.call_after_refresh(set_up))
    return app.run() or 0


def again(screen: TranslateScreen) -> None:
    if screen.exchange is not None and screen.exchange.ended and not screen.exchange.problem:
        now = screen.panel.decoding
        screen.decode_with(msgspec.structs.replace(now, seed=now.seed + 1))
        screen.translate(screen.exchange.source)


if __name__ == "__main__":
    sys.exit(main())
