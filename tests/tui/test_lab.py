"""Lab: a text read token by token, on a real engine, for each family of models."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tfm.tui.app import TfmApp
from tfm.tui.screens.lab import LabScreen
from tfm.tui.screens.translate import TranslateScreen
from tfm.tui.widgets.chain_view import ChainView
from tfm.tui.widgets.token_panel import TokenPanel

from .driving import HOSTILE, driven, painted, until


@pytest.mark.parametrize("family", ["tiny_translator", "tiny_decoder", "tiny_filler"])
async def test_every_family_reads_its_example_and_a_text_of_ones_own(
    family: str, request: pytest.FixtureRequest
) -> None:
    async with driven(LabScreen, request.getfixturevalue(family), (100, 40)) as (screen, pilot):
        app = pilot.app
        await until(pilot, lambda: screen.reading, "the example read")
        assert screen.reading is not None and screen.given.display == (family == "tiny_translator")
        first = screen.reading
        assert f"{len(first.tokens)} tokens" in painted(app) and "perplexity" in painted(app)
        await until(pilot, lambda: "drawn" in painted(app), "rivals of the first token")
        await pilot.press("down", "n")
        await until(pilot, lambda: f"token {screen.table.here + 1} of" in painted(app), "the next one")
        panel = screen.query_one(TokenPanel)
        await until(pilot, lambda: panel._token and panel._token.position == screen.table.here, "its rivals")
        assert panel._token is not None and panel._token.token == first.tokens[screen.table.here].token

        # the probability that score gives is the one that generation has at the same place
        raw = {candidate.token: candidate.raw for candidate in panel._token.top}
        if panel._token.token in raw and family != "tiny_filler":
            assert raw[panel._token.token] == pytest.approx(panel._token.probability, abs=1e-4)

        chain = screen.query_one(ChainView)
        if family != "tiny_filler":
            await pilot.press("K")  # top-k 1
            await until(pilot, lambda: any(r.stage == "top_k" and r.left == 1 for r in chain._trace), "top-k")

        screen.looked.text = "A man and a dog"
        await pilot.press("i", "enter")
        await until(pilot, lambda: screen.reading and screen.reading is not first, "the reading")
        assert screen.reading is not None
        read = "".join(token.piece for token in screen.reading.tokens)
        assert "man and a dog" in read and screen.table.has_focus
        await pilot.press("end")
        assert screen.table.here == len(screen.reading.tokens) - 1


async def test_it_keeps_its_text_and_begins_with_the_model_at_hand(tiny_translator: Path) -> None:
    async with driven(TranslateScreen, tiny_translator) as (translate, pilot):
        app = pilot.app
        assert isinstance(app, TfmApp)
        await until(pilot, lambda: translate.session.info, "the model")
        await pilot.press("f4")
        await until(pilot, lambda: isinstance(app.screen, LabScreen) and app.screen.reading, "the lab")
        screen = app.screen
        assert isinstance(screen, LabScreen)
        assert screen.session.info == translate.session.info
        await pilot.press("i", *"Hi ", "f1")
        await until(pilot, lambda: app.screen is translate, "translate")
        await pilot.press("f4")
        await until(pilot, lambda: app.screen is screen, "the lab again")
        assert "Hi " in screen.looked.text and screen.reading is not None


async def test_what_cannot_be_read_is_a_sentence_in_place(tiny_decoder: Path) -> None:
    async with driven(LabScreen, tiny_decoder) as (screen, pilot):
        await until(pilot, lambda: screen.reading, "the example read")
        screen.looked.text = "word " * 500
        await pilot.press("i", "enter")
        await until(pilot, lambda: screen.reading is None and "128" in painted(pilot.app), "the sentence")
        assert screen.looked.text.startswith("word word")  # nothing lost
        screen.looked.text = ""
        await pilot.press("i", "enter")
        await until(
            pilot, lambda: "nothing to score" in painted(pilot.app).replace("\n", " "), "the sentence"
        )


async def test_no_engine_hostile_text_and_small_terminals() -> None:
    rng = random.Random(4)
    async with driven(LabScreen, None, (100, 30)) as (screen, pilot):
        await until(pilot, lambda: "Cannot start the engine" in painted(pilot.app), "the sentence")
        await pilot.press("down", "n", "y", "t", "tab", "tab")
        screen.looked.text = HOSTILE
        screen._note(HOSTILE, "bad")
        await pilot.pause(0.2)
        assert "[@click=app.leave]" in painted(pilot.app)
        assert not set(painted(pilot.app)) & set("\x1b\x07\x9b\u202e\u2066\u200b")
        for _ in range(25):
            await pilot.resize_terminal(rng.choice([1, 2, 5, 30, 80, 200]), rng.choice([1, 2, 5, 24, 60]))
        assert pilot.app.is_running
