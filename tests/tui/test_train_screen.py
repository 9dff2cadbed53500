"""The training panel, driven through its keys: on logs as trainers leave them, and on real trainers."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Input, OptionList

from tests.tui.driving import HOSTILE, painted, press_now, until
from tfm.train import events
from tfm.train.event_log import EventLog
from tfm.train.run_dir import RunDir, list_runs
from tfm.tui.app import TfmApp
from tfm.tui.screens.checklist import Checklist
from tfm.tui.screens.fill import FillScreen
from tfm.tui.screens.lab import LabScreen
from tfm.tui.screens.prompt import Choice, Prompt
from tfm.tui.screens.text_prompt import TextPrompt
from tfm.tui.screens.train import TrainScreen
from tfm.tui.screens.translate import TranslateScreen
from tfm.tui.widgets.message_input import MessageInput
from tfm.tui.widgets.samples import Samples

Kind = TypeVar("Kind", bound=Widget)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where runs go; trainers that a test left are ended."""
    monkeypatch.setenv("TFM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "home"
    for info in list_runs(tmp_path / "home" / "runs"):
        owner = RunDir.open(info.path).owner()
        if owner is not None and owner.alive() and owner.pid != os.getpid():
            os.kill(owner.pid, signal.SIGKILL)


def run_log(
    home: Path, name: str, evaluations: int, ended: str = "finished", objective: str = "translation"
) -> str:
    """A run's directory as a trainer leaves it; its id."""
    run = RunDir.create(f'name = "{name}"\n', name, home / "runs")
    with run.lock():
        log = EventLog(run)
        log.append(
            events.RunStarted(
                run=run.id, objective=objective, n_parameters=1000, total_steps=evaluations * 100,
                steps_per_epoch=50, device="cpu", precision="fp32",
            )
        )  # fmt: skip
        for n in range(1, evaluations + 1):
            log.append(
                events.Step(
                    step=n * 100, epoch=n * 2, loss=6 / n, nll=5 / n, accuracy=1 - 1 / (n + 1), grad_norm=1.0,
                    learning_rate=1e-3, tokens=n * 1000, tokens_per_second=500.0, seconds=n,
                )
            )  # fmt: skip
            log.append(events.Evaluated(step=n * 100, loss=6 / n, perplexity=9.0, accuracy=0.5, bleu=4.0 * n))
            sample = events.Sample(source="A man.", reference="Ein Mann.", output=f"Ein Mann {n}. {HOSTILE}")
            log.append(events.Samples(step=n * 100, samples=(sample,)))
        if ended:
            log.append(events.RunEnded(reason=ended, step=evaluations * 100))
        log.close()
    return run.id


@asynccontextmanager
async def training(
    run: str | None = None, size: tuple[int, int] = (100, 30)
) -> AsyncIterator[tuple[TrainScreen, Pilot[int]]]:
    app = TfmApp(run=run, mode="train")
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: isinstance(app.screen, TrainScreen), "the mode")
        screen = app.screen
        assert isinstance(screen, TrainScreen)
        yield screen, pilot


async def opened(pilot: Pilot[int], kind: type[Screen[Any]], inside: type[Kind]) -> Kind:
    """The widget in an overlay, once that is there."""
    await until(pilot, lambda: isinstance(pilot.app.screen, kind), kind.__name__)
    await until(pilot, lambda: pilot.app.screen.query(inside), inside.__name__)
    return pilot.app.screen.query_one(inside)


async def answer(pilot: Pilot[int], text: str) -> None:
    """Type this into a prompt, in place of what is there, and accept it."""
    (await opened(pilot, Prompt, Input)).value = text
    press_now(pilot, "enter")


async def see(pilot: Pilot[int], *texts: str, seconds: float = 60) -> None:
    """Wait until all of this is on the screen. Painting it all is dear, so look now and then."""
    shown, deadline = "", time.monotonic() + seconds
    while time.monotonic() < deadline:
        shown = painted(pilot.app)
        if all(text in shown for text in texts):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{[text for text in texts if text not in shown]} not in\n{shown}")


# --------------------------------------------------------------------------- logs
@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_a_finished_run_stays_on_the_panel(home: Path, size: tuple[int, int]) -> None:
    run_log(home, "done", evaluations=8)
    async with training(size=size) as (screen, pilot):
        await until(pilot, lambda: screen.runs.runs, "the list")
        await pilot.press("enter")
        await see(
            pilot, "finished", "800 / 800", "100%", "BLEU", "32.0", "best BLEU 32.0 at 800", "Ein Mann 8."
        )
        if size != (80, 24):
            await see(pilot, "accuracy", "learning rate")
        text = painted(pilot.app)
        assert not set(text) & set("\x1b\x07\u202e")
        assert any(0x2800 < ord(c) < 0x2900 for c in text)
        await pilot.press("comma", "comma")
        await see(pilot, "Ein Mann 6.", "step 600")
        await pilot.press("S")
        await see(pilot, "finished and does not train: F forks it")
        await pilot.press("escape")
        await until(pilot, lambda: screen.record is None, "the list again")


async def test_runs_are_marked_in_the_list_and_drawn_over_each_other(home: Path) -> None:
    names = [run_log(home, name, n) for name, n in (("long", 9), ("short", 4), ("other", 2))]
    async with training(size=(120, 40)) as (screen, pilot):
        await until(pilot, lambda: len(screen.runs.runs) == 3, "the list")
        order = [info.run for info in screen.runs.runs]
        await pilot.press("space", "down", "space", "down")
        assert screen.runs.marked == tuple(order[:2]) and "2 marked" in painted(pilot.app)
        await pilot.press("up", "space", "enter")  # one mark taken away again, that run watched
        room = screen.watch_room
        assert [record.run for record in room.records] == [order[1], order[0]]
        await see(pilot, *order[:2], "loss  ● ", "  ▲ ")
        await pilot.press("a")
        await until(pilot, lambda: isinstance(pilot.app.screen, Checklist), "the checklist")
        await pilot.press("n", "down", "space", "enter")
        await until(pilot, lambda: pilot.app.screen is screen, "the panel")
        left = [name for name in names if name != order[1]]
        assert [record.run for record in room.records] == [
            order[1],
            next(n for n in order if n in left and n != order[0]),
        ]
        await until(pilot, lambda: all(record.ended for record in room.records), "both logs")
        await pilot.press("a")
        await until(pilot, lambda: isinstance(pilot.app.screen, Checklist), "the checklist")
        await pilot.press("n", "enter")
        await until(pilot, lambda: len(room.records) == 1, "one run")


async def test_the_view_is_turned_by_keys_and_said(home: Path) -> None:
    run = run_log(home, "done", evaluations=40)
    async with training(run, size=(120, 40)) as (screen, pilot):
        await see(pilot, "finished", "4,000")
        room = screen.watch_room
        await pilot.press("x", "y", "M", "M", "v")
        await see(pilot, "over time", "smoothed 0.8", "log", "train only", "0:00:40")
        assert "best BLEU" in painted(pilot.app)  # in the summary; the plot of a validation curve is empty
        await pilot.press("x", "x", "v", "v", "m", "m", "y", "plus")
        await see(pilot, "zoomed", "2,050")
        await pilot.press("left", "left")
        assert room.view.right is not None and room.view.right < 4000
        await pilot.press("end", "minus")
        await until(pilot, lambda: not room.view.described(), "everything again")
        await pilot.press("f")
        await until(pilot, lambda: room.full == "loss" and len(room.shown_curves()) == 1, "one curve")
        await pilot.press("f")
        assert room.full == "perplexity"
        await pilot.press("o")
        await until(pilot, lambda: isinstance(pilot.app.screen, Checklist), "the checklist")
        await pilot.press("n", *["down"] * 2, "space", "enter")
        await until(
            pilot, lambda: [kind.id for kind in room.shown_curves()] == ["accuracy"], "accuracy alone"
        )


async def test_curves_are_exported(home: Path, tmp_path: Path) -> None:
    run = run_log(home, "done", evaluations=5)
    async with training(run) as (_, pilot):
        await see(pilot, "finished")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(pilot.app.screen, Prompt), "the prompt")
        await pilot.press("enter")
        await see(pilot, "written")
    rows = (tmp_path / f"{run}.csv").read_text().splitlines()
    assert len(rows) == 1 + 5 * (6 + 4)  # of each step 6 curves, of each evaluation 4
    ElementTree.fromstring((tmp_path / f"{run}.svg").read_text())


async def test_a_run_that_is_not_there_and_a_config_that_is_wrong_are_sentences(home: Path) -> None:
    async with training("no-such-run") as (screen, pilot):
        await see(pilot, "no run")
        await pilot.press("escape")
        await until(pilot, lambda: screen.record is None, "the list")
        await see(pilot, "No run yet", 'train = "pairs.tsv"')
        await pilot.press("n")
        await until(pilot, lambda: isinstance(pilot.app.screen, Prompt), "the prompt")
        home.mkdir(exist_ok=True)
        (home / "bad.toml").write_text('name = "x"\nmodle = 3\n')
        await pilot.press(*str(home / "bad.toml"), "enter")
        await until(pilot, lambda: "modle" in painted(pilot.app).replace("\n", ""), "what is wrong")
        assert isinstance(pilot.app.screen, Prompt)


async def test_tiny_terminals_do_not_break_the_panel(home: Path) -> None:
    run = run_log(home, "done", evaluations=30)
    async with training(run) as (_, pilot):
        await see(pilot, "finished")
        for size in ((1, 1), (2, 40), (40, 2), (20, 5), (300, 100), (80, 24)):
            await pilot.resize_terminal(*size)
            await pilot.pause(0.05)
        await see(pilot, "finished", "BLEU")


# --------------------------------------------------------------------------- real trainers
@pytest.fixture
def endless(tiny_config: Path) -> Path:
    """A config of a run that ends when it is told to; it translates a few sentences when it evaluates."""
    text = re.sub(r"max_steps *= *\d+", "max_steps = 1000000", tiny_config.read_text())
    text = text.replace("bleu_sentences = 0", "bleu_sentences = 2").replace(
        "save_every = 10", "save_every = 500"
    )
    path = tiny_config.with_name("endless.toml")
    path.write_text(text)
    return path


async def test_a_run_started_here_is_watched_left_and_found_again(endless: Path, home: Path) -> None:
    """The whole of it with a real trainer: start, curves, leave, come back, stop with a checkpoint."""
    async with training() as (screen, pilot):
        await pilot.press("n")
        await until(pilot, lambda: isinstance(pilot.app.screen, Prompt), "the prompt")
        await pilot.press(*str(endless), "enter")
        await until(pilot, lambda: screen.record and len(screen.record.curves["loss"]) > 2, "steps", 120)
        assert screen.record is not None
        run = screen.record.run
        await see(pilot, "running", "ETA", "memory", "FLOP/s")
        await until(pilot, lambda: (screen.watch_room.machine.load or 0) > 1, "the trainer's load")
        press_now(pilot, "d")  # the app goes, and its engine; the trainer goes on

    async with training(run) as (screen, pilot):
        await until(pilot, lambda: screen.record and screen.record.step_number > 0, "its steps")
        client = screen.session.client
        assert screen.record is not None and screen.record.state == "running" and client.welcome is not None
        os.kill(client.welcome.pid, signal.SIGKILL)  # the engine goes; the trainer does not
        await until(pilot, lambda: client.starts == 2, "another engine", 120)
        reached = screen.record.step_number
        await until(pilot, lambda: screen.record and screen.record.step_number > reached + 100, "more steps")
        press_now(pilot, "Q")
        await until(pilot, lambda: screen.record and screen.record.ended, "the end", 120)
        await see(pilot, "stopped", "Space", "goes on")
        stopped = screen.record.step_number
        assert (home / "runs" / run / f"step-{stopped:06d}" / "MANIFEST.json").exists()
        press_now(pilot, "space")  # and on with it
        await until(
            pilot, lambda: screen.record and screen.record.step_number > stopped + 5, "more steps", 120
        )
        assert screen.record.started is not None and screen.record.started.resumed_from == stopped
        press_now(pilot, "Q")
        await until(pilot, lambda: screen.record and screen.record.ended, "the end", 120)


async def test_a_run_is_steered_from_the_panel(endless: Path, home: Path) -> None:
    """Pause, rate, bookmark, evaluate, prompts, back, fork, talk: each by its keys, on a real trainer."""
    from tfm.train.launch import start_detached

    run = start_detached(endless)
    async with training(run.id, size=(120, 40)) as (screen, pilot):
        await until(pilot, lambda: screen.record and screen.record.step_number > 5, "steps", 120)
        record = screen.record
        assert record is not None

        press_now(pilot, "space")
        await until(pilot, lambda: record.paused, "the pause")
        press_now(pilot, "L")
        await answer(pilot, "2")
        await see(pilot, "lies between 0 and 1")
        await answer(pilot, "7e-4 for 50")
        await see(pilot, "learning rate done: 0.0007 up to step")
        press_now(pilot, "b")
        await answer(pilot, "good")
        await see(pilot, "kept as bookmark-good")
        kept_at = record.saved[-1].step
        press_now(pilot, "e")
        await until(pilot, lambda: record.evaluated, "the evaluation")
        press_now(pilot, "p")
        (await opened(pilot, TextPrompt, MessageInput)).text = "a cat sees a dog .\na dog"
        press_now(pilot, "enter")
        await until(
            pilot, lambda: len(record.samples) > 1 and len(record.samples[-1].samples) == 2, "samples"
        )
        press_now(pilot, "space")
        await until(pilot, lambda: not record.paused and record.step_number > kept_at + 3, "it goes on")
        assert 7e-4 in [point.value for point in record.curves["learning_rate"]]

        press_now(pilot, "r")
        lines = await opened(pilot, Choice, OptionList)
        named = [str(lines.get_option_at_index(n).prompt) for n in range(lines.option_count)]
        press_now(
            pilot, *["down"] * next(n for n, text in enumerate(named) if text.startswith("good")), "enter"
        )
        await until(pilot, lambda: "went back" in record.news or "rollback done" in record.news, "going back")

        press_now(pilot, "F")
        await opened(pilot, Choice, OptionList)
        press_now(pilot, "enter")
        await answer(pilot, "data.vocab_size=9")
        await see(pilot, "a fork goes on with the same data")
        await answer(pilot, "optim.clip_norm=0.5")
        await until(pilot, lambda: screen.record is not record, "the fork", 120)
        fork = screen.record
        assert fork is not None and [r.run for r in screen.watch_room.records] == [fork.run, run.id]
        await until(pilot, lambda: fork.started and fork.started.resumed_from, "its first word", 120)
        assert "clip_norm = 0.5" in (home / "runs" / fork.run / "config.toml").read_text()
        press_now(pilot, "Q")
        await until(pilot, lambda: fork.ended, "the end of the fork", 120)

        press_now(pilot, "c")  # talk to what the fork saved
        await until(pilot, lambda: isinstance(pilot.app.screen, TranslateScreen), "translate", 120)
        translate = pilot.app.screen
        assert isinstance(translate, TranslateScreen) and translate.session.info is not None
        assert translate.session.info.name.startswith(fork.run)
        assert RunDir.open(run.id).state() == "running"
        press_now(pilot, "f5")
        await until(pilot, lambda: pilot.app.screen is screen, "the panel again")


async def test_talking_to_a_run_that_saved_nothing_says_what_to_do(home: Path) -> None:
    run = run_log(home, "new", evaluations=1, ended="")
    async with training(run) as (screen, pilot):
        await see(pilot, "lost")
        await pilot.press("c")
        await see(pilot, "S saves one now")
        assert screen.is_current and not isinstance(screen, FillScreen)
        assert screen.query_one(Samples).step == 100


async def test_a_model_of_plain_text_is_talked_to_in_the_lab(home: Path, tiny_decoder: Path) -> None:
    run = run_log(home, "prose", evaluations=1, objective="causal-lm")
    shutil.copytree(tiny_decoder, home / "runs" / run / "step-000100")
    log = EventLog(RunDir.open(run))
    log.append(events.CheckpointSaved(step=100, path="step-000100", reason="final"))
    log.append(events.RunEnded(reason="finished", step=100))
    log.close()
    async with training(run) as (screen, pilot):
        await see(pilot, "finished", f"tfm-tui generate -m {run}")
        press_now(pilot, "c")
        await until(pilot, lambda: isinstance(pilot.app.screen, LabScreen), "the lab")
        lab = pilot.app.screen
        assert isinstance(lab, LabScreen) and lab.session.info is not None
        assert lab.session.info.name == f"{run}@100"
        await until(pilot, lambda: lab.reading and lab.reading.tokens, "its first reading")
        assert screen.record is not None and f"{run}@100 is in lab" in screen.record.news
