"""The Models mode, driven through its keys, on a real engine and real checkpoint folders."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.pilot import Pilot

from tests.conftest import make_checkpoint
from tests.tui.driving import HOSTILE, painted, press_now, until
from tfm.tui.app import TfmApp
from tfm.tui.client import LOCAL_ENGINE
from tfm.tui.screens.models import ModelsScreen
from tfm.tui.screens.prompt import Choice, Prompt

# Reading a tensor takes a while, as from a slow disk, so that there is a middle to cancel in.
SLOW = """
import sys, time
from tfm.core import checkpoint
each_tensor = checkpoint.each_tensor
def slowly(*args, **options):
    for item in each_tensor(*args, **options):
        time.sleep(0.3)
        yield item
checkpoint.each_tensor = slowly
from tfm.tui.cli import main
raise SystemExit(main(["engine"]))
"""
NASTY = "evil \x1b[31m[b]bold[@click=app.leave]"


@pytest.fixture(autouse=True)
def home(
    tmp_path: Path,
    tiny_translator: Path,
    tiny_decoder: Path,
    tiny_filler: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """$TFM_HOME with three models of the user's own, one of them of a nasty name and card."""
    monkeypatch.setenv("TFM_HOME", str(tmp_path))
    for name, source in (("a-filler", tiny_filler), ("b-decoder", tiny_decoder), (NASTY, tiny_translator)):
        shutil.copytree(source, tmp_path / "checkpoints" / name)
    folder = tmp_path / "checkpoints" / NASTY
    (folder / "MANIFEST.json").unlink()
    (folder / "card.md").write_text(f"# {HOSTILE}\n" + "a line\n" * 60 + "the last line\n")
    return tmp_path


@asynccontextmanager
async def shelved(
    size: tuple[int, int] = (80, 24), engine: tuple[str, ...] = LOCAL_ENGINE
) -> AsyncIterator[tuple[ModelsScreen, Pilot[int]]]:
    app = TfmApp(engine, model="a-filler", mode="models")
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: isinstance(app.screen, ModelsScreen), "the mode")
        screen = app.screen
        assert isinstance(screen, ModelsScreen)
        await until(pilot, lambda: screen.shelf.models, "the list")
        yield screen, pilot


async def choose(screen: ModelsScreen, pilot: Pilot[int], name: str) -> None:
    """With the keys: to the top, then down to it."""
    names = [info.name for info in screen.shelf.models]
    await pilot.press("home", *["down"] * names.index(name))
    assert screen.shelf.here is not None and screen.shelf.here.name == name
    await until(pilot, lambda: screen.shelf.here.path in screen.cards, "its card")  # type: ignore[union-attr]


def page_text(screen: ModelsScreen) -> str:
    """All that can be read on the right, wrapped or not."""
    rows = (screen.page.row(y) for y in range(screen.page.n_rows))
    return " ".join("".join(text for text, _ in row) for row in rows)


def held(screen: ModelsScreen) -> set[str]:
    return {Path(model.path).name for model in screen.shelf.held}


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_the_list_and_the_whole_card(size: tuple[int, int]) -> None:
    async with shelved(size) as (screen, pilot):
        app = pilot.app
        await choose(screen, pilot, "a-filler")
        await until(pilot, lambda: "bleu 12.5" in page_text(screen), "its scores")
        text = painted(app) + " ".join(page_text(screen).split())
        for figure in ("a-filler", "fill", "128 tokens", "A tiny encoder-only model"):
            assert figure in text, figure
        await choose(screen, pilot, NASTY)
        await until(pilot, lambda: "[@click=app.leave]leave[/]" in painted(app), "its card, as text")
        await pilot.press("tab")
        seen = painted(app)
        while "config.json" not in seen:  # behind the card, to its last line
            await pilot.press("pagedown")
            seen += painted(app)
        assert "the last line" in seen
        assert not set(seen) & set("\x1b\x07\x9b\u202e\u2066\u200b")
        await pilot.press("escape")
        assert screen.listing.has_focus and app.is_running


async def test_load_unload_and_the_memory_that_they_take() -> None:
    async with shelved() as (screen, pilot):
        await choose(screen, pilot, "b-decoder")
        await pilot.press("l")
        await until(pilot, lambda: "b-decoder" in held(screen), "the model")
        await until(pilot, lambda: not screen.shelf.works, "the end of loading")
        await until(pilot, lambda: "b-decoder fp32" in painted(pilot.app), "the row of memory")
        assert screen.shelf.budget_bytes > 0 and "b-decoder is in memory, fp32 on cpu" in painted(pilot.app)
        await pilot.press("u")
        await until(pilot, lambda: "b-decoder" not in held(screen), "the memory")


async def test_a_load_is_called_off_and_keeps_nothing() -> None:
    import sys

    async with shelved(engine=(sys.executable, "-c", SLOW)) as (screen, pilot):
        await choose(screen, pilot, "b-decoder")
        press_now(pilot, "l")
        await until(pilot, lambda: any(work.fraction > 0 for work in screen.shelf.works), "progress")
        await until(pilot, lambda: "reading the weights" in painted(pilot.app), "how far it is")
        press_now(pilot, "down")  # the screen goes on meanwhile
        await until(pilot, lambda: screen.shelf.here and screen.shelf.here.name == NASTY, "the next one")
        press_now(pilot, "escape")
        await until(pilot, lambda: not screen.shelf.works, "the end")
        await until(pilot, lambda: "called off" in painted(pilot.app), "the sentence")
        screen.look()
        await pilot.pause(0.3)
        assert "b-decoder" not in held(screen)


async def test_enter_uses_a_model_where_it_is_good_for() -> None:
    async with shelved() as (screen, pilot):
        app = pilot.app
        assert isinstance(app, TfmApp)
        await choose(screen, pilot, NASTY)
        await pilot.press("enter")
        await until(pilot, lambda: app.current_mode == "translate", "the mode")
        info = app.sessions["translate"].info
        assert info is not None and info.name == NASTY
        await pilot.press("f6")
        await until(pilot, lambda: app.screen is screen, "models again")
        assert screen.shelf.here is not None and screen.shelf.here.name == NASTY  # as it was left
        await choose(screen, pilot, "b-decoder")
        await pilot.press("enter")
        await until(pilot, lambda: app.current_mode == "lab", "the lab, for one that cannot chat")


async def test_verify_says_what_is_wrong(home: Path) -> None:
    data = bytearray((home / "checkpoints" / "b-decoder" / "model.safetensors").read_bytes())
    data[-3] ^= 1
    (home / "checkpoints" / "b-decoder" / "model.safetensors").write_bytes(data)
    async with shelved((120, 40)) as (screen, pilot):
        for name, said in (("a-filler", "every number is finite"), ("b-decoder", "has changed: its SHA-256")):
            await choose(screen, pilot, name)
            await pilot.press("v")
            await until(pilot, lambda said=said: said in page_text(screen), said)


async def test_two_configs_side_by_side() -> None:
    async with shelved((120, 40)) as (screen, pilot):
        await choose(screen, pilot, "a-filler")
        await pilot.press("c", "down")
        await until(pilot, lambda: "fields differ" in painted(pilot.app), "the comparison")
        text = painted(pilot.app)
        differ, same = text.index("fields differ"), text.index("The same in both")
        assert differ < text.index("n_kv_heads") < same and text.index("vocab_size", same) > same
        assert "≠ positions" in text and "rotary" in text and "sinusoidal" in text
        await pilot.press("escape")
        await until(pilot, lambda: "fields differ" not in painted(pilot.app), "the card again")


async def test_delete_asks_and_takes_only_ones_own(home: Path) -> None:
    async with shelved() as (screen, pilot):
        app = pilot.app
        bundled = next((info.name for info in screen.shelf.models if info.source == "bundled"), None)
        if bundled is not None:
            await choose(screen, pilot, bundled)
            await pilot.press("x")
            await until(pilot, lambda: "only your own are deleted" in painted(app), "the refusal")
            assert app.screen is screen
        await choose(screen, pilot, "b-decoder")
        await pilot.press("l")
        await until(pilot, lambda: "b-decoder" in held(screen), "the model")
        for answer in ("enter", "escape"):  # what is asked first keeps it
            await pilot.press("x")
            await until(pilot, lambda: isinstance(app.screen, Choice), "the question")
            await pilot.press(answer)
            await until(pilot, lambda: app.screen is screen, "the list")
        assert (home / "checkpoints" / "b-decoder").is_dir()
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Choice), "the question")
        await pilot.press("down", "enter")
        await until(pilot, lambda: "b-decoder" not in {info.name for info in screen.shelf.models}, "the list")
        assert not (home / "checkpoints" / "b-decoder").exists() and "b-decoder" not in held(screen)


async def test_import_by_path_and_name(home: Path, tmp_path: Path) -> None:
    from tfm.core.convert.huggingface_out import export_folder

    no_biases = dict.fromkeys(("qkv_bias", "out_bias", "ff_bias", "scale_embeddings"), False)
    llama = make_checkpoint(
        tmp_path / "llama", "decoder-only", positions="rotary", norm="rmsnorm", activation="silu",
        gated_ff=True, **no_biases,
    )  # fmt: skip
    export_folder(llama, tmp_path / "hf")
    async with shelved() as (screen, pilot):
        app = pilot.app
        for path, said in ((tmp_path / "none", "there is no folder"), (tmp_path / "hf", "hf is here")):
            await pilot.press("i")
            await until(pilot, lambda: isinstance(app.screen, Prompt), "the path")
            await pilot.press(*str(path), "enter")
            await until(pilot, lambda: "what to call it" in painted(app), "the name")
            await pilot.press("enter")
            await until(pilot, lambda said=said: said in painted(app), said)
        await until(pilot, lambda: screen.shelf.here and screen.shelf.here.name == "hf", "it is chosen")
        assert (home / "checkpoints" / "hf" / "MANIFEST.json").is_file()


async def test_a_name_that_is_nothing_is_a_sentence() -> None:
    async with shelved() as (screen, pilot):
        await pilot.press("g")
        await until(pilot, lambda: isinstance(pilot.app.screen, Prompt), "the prompt")
        await pilot.press("end", *["backspace"] * 7, *"../up", "enter")
        await until(pilot, lambda: "no name of a published model" in painted(pilot.app), "the sentence")
        assert not screen.shelf.works
