"""The chat, driven through its keys, on a real engine."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path

import pytest
from textual._compositor import ChopsUpdate
from textual.pilot import Pilot

from tfm.tui.app import TfmApp
from tfm.tui.conversation import Conversation, Turn
from tfm.tui.screens import chat_view
from tfm.tui.screens.chat import ChatScreen
from tfm.tui.screens.chat_setup import SetupScreen
from tfm.tui.screens.prompt import Prompt
from tfm.tui.screens.sessions import SessionsScreen
from tfm.tui.widgets.token_stream import CURSOR
from tfm.tui.widgets.transcript import Transcript, TurnView
from tfm.tui.works import chats

from .driving import HOSTILE, driven, painted, press_now, sent, until


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TFM_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def say(screen: ChatScreen, pilot: Pilot[int], text: str, *keys: str) -> None:
    """Send a message (or press keys that make a reply) and wait for the end of the reply."""
    before = screen.writing
    if text:
        screen.message.text = text
    await pilot.press(*keys or ("enter",))
    await ended(screen, pilot, before)


async def ended(screen: ChatScreen, pilot: Pilot[int], before: object) -> None:
    await until(pilot, lambda: screen.writing is not before and not screen.running, "the reply")
    assert screen.writing is not None and not screen.writing.problem, screen.writing.problem
    await pilot.pause(0.1)  # some frames


def texts(screen: ChatScreen) -> list[str]:
    return [screen.talk.turns[number].text for number in screen.path]


async def test_a_conversation_from_first_word_to_export(tiny_chatter: Path, home: Path) -> None:
    async with driven(ChatScreen, tiny_chatter) as (screen, pilot):
        await until(pilot, lambda: screen.session.info, "the model")
        await pilot.press("ctrl+t")
        setup = pilot.app.screen
        assert isinstance(setup, SetupScreen)
        await pilot.press(*"Be kind.", "tab", "tab", *"12", "enter")
        await until(pilot, lambda: pilot.app.screen is screen, "the dialog to close")
        assert (screen.talk.system, screen.talk.max_tokens) == ("Be kind.", 12)

        await say(screen, pilot, "A man in a boat.")
        first = screen.talk.turns[screen.path[1]]
        assert (first.reason, len(first.tokens), first.seed) == ("length", 12, 1)
        assert chat_view.note(screen.talk, screen.path[1], False, False) == "cut · 12 tokens"
        assert "of 128" in painted(pilot.app) and "^E continue" in painted(pilot.app)

        await say(screen, pilot, "", "ctrl+e")  # the same turn, longer
        assert len(first.tokens) == 24 and screen.talk.versions(screen.path[1]) == [screen.path[1]]

        await say(screen, pilot, "", "ctrl+r")
        second = screen.talk.turns[screen.path[1]]
        assert second.seed == 2 and second.text != first.text
        await pilot.press("f7")
        assert texts(screen)[1] == first.text
        await pilot.press("f8")
        assert texts(screen)[1] == second.text

        await pilot.press("tab", "home", "right", "right")  # a token of the reply, and a rival in its place
        assert screen.token_index() == 2
        await say(screen, pilot, "", "2")
        taken = screen.talk.turns[screen.path[1]]
        assert taken.tokens[:2] == second.tokens[:2] and taken.tokens[2] != second.tokens[2]
        assert len(screen.talk.versions(screen.path[1])) == 3

        await pilot.press("up", "up", "e")
        assert screen.editing == screen.path[0] and screen.message.text == "A man in a boat."
        await say(screen, pilot, "Two men.", "enter")
        assert texts(screen)[0] == "Two men." and screen.editing is None
        await pilot.press("tab", "up", "comma")
        assert texts(screen)[:2] == ["A man in a boat.", taken.text]

        await pilot.press("ctrl+s")
        assert isinstance(pilot.app.screen, Prompt)
        await pilot.press("enter")
        await until(pilot, lambda: list(home.glob("chat-*.md")), "the export")
        whole = json.loads(next(home.glob("chat-*.json")).read_text())
        assert [m["content"] for m in whole["messages"]] == ["Be kind.", "A man in a boat.", taken.text]
        shown = texts(screen)
    async with driven(ChatScreen, None) as (screen, pilot):  # as it was left, without any engine
        assert texts(screen) == shown and screen.talk.system == "Be kind."
        await pilot.press("tab", "up", "full_stop")
        assert texts(screen)[0] == "Two men."


async def test_escape_keeps_what_is_there_and_it_goes_on(tiny_chatter: Path) -> None:
    async with driven(ChatScreen, tiny_chatter) as (screen, pilot):
        await until(pilot, lambda: screen.session.info, "the model")
        screen.talk.n_replies = 8
        screen.message.text = "A boy."
        press_now(pilot, "enter")
        await until(pilot, lambda: screen.writing and screen.writing.n_new > 40, "tokens")
        press_now(pilot, "escape")
        await until(pilot, lambda: not screen.running, "the stop")
        await pilot.pause()
        stopped = [screen.talk.turns[n] for n in screen.talk.versions(screen.path[1])]
        assert len(stopped) == 8 and len({turn.seed for turn in stopped}) == 8
        assert {turn.reason for turn in stopped} == {"cancelled"}, "the machine was faster than the key"
        assert all(turn.text and turn.tokens for turn in stopped)
        number, kept = screen.path[1], screen.talk.turns[screen.path[1]].tokens
        screen.talk.max_tokens = 4
        await say(screen, pilot, "", "ctrl+e")
        assert screen.path[1] == number and screen.talk.turns[number].tokens[: len(kept)] == kept
        assert len(screen.talk.turns[number].tokens) == len(kept) + 4


async def test_the_app_that_ends_in_mid_reply_keeps_it(tiny_chatter: Path) -> None:
    async with driven(ChatScreen, tiny_chatter) as (screen, pilot):
        await until(pilot, lambda: screen.session.info, "the model")
        screen.talk.n_replies = 8
        screen.message.text = "A boy."
        press_now(pilot, "enter")
        await until(pilot, lambda: screen.writing and screen.writing.n_new > 40, "tokens")
        assert screen.running
    talk = chats().reopened()[0]
    assert talk is not None and len(talk.turns) == 9
    assert all(turn.tokens and turn.reason in ("lost", "cancelled") for turn in talk.turns[1:])
    assert talk.turns[talk.last].can_go_on


async def test_knobs_act_while_it_writes(tiny_chatter: Path) -> None:
    async with driven(ChatScreen, tiny_chatter) as (screen, pilot):
        await until(pilot, lambda: screen.session.info, "the model")
        screen.talk.n_replies = 8
        screen.message.text = "A boy."
        press_now(pilot, "enter", "tab")
        await until(pilot, lambda: screen.writing and screen.writing.n_new > 8, "tokens")
        press_now(pilot, "T", "K")
        await until(pilot, lambda: not screen.running, "the end")
        await pilot.pause()
        marks = [[n for n, t in enumerate(tokens) if t.settings_mark] for tokens in screen.heard.values()]
        assert all(marks), "the machine was faster than the keys"
        settings = screen.panel.decoding.settings
        assert (settings.temperature, settings.top_k) == (pytest.approx(0.45), 1)
        for lane, tokens in zip(marks, screen.heard.values(), strict=True):
            assert lane[0] > 0 and all(
                t.probability == 1 for t in tokens[lane[-1] :]
            )  # top-k 1 from there on


async def test_the_oldest_turns_are_left_out_and_said_so(tiny_chatter: Path) -> None:
    async with driven(ChatScreen, tiny_chatter, (120, 40)) as (screen, pilot):
        screen.talk.max_tokens = 30
        for n in range(5):
            await say(screen, pilot, f"A man in a blue shirt number {n}.")
        last = screen.talk.turns[screen.path[-1]]
        assert last.dropped and set(last.dropped) <= set(screen.path)
        assert last.n_prompt + len(last.tokens) <= 129
        assert "left out" in painted(pilot.app)
        await pilot.press("tab", *["up"] * 12)
        assert "context is full" in painted(pilot.app)


async def test_without_a_model_nothing_is_lost_and_it_says_what_to_press(home: Path) -> None:
    app = TfmApp(mode="chat")  # a real engine; nothing in this home, and what ships may hold no chat model
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, ChatScreen), "the chat")
        screen = app.screen
        assert isinstance(screen, ChatScreen)
        await until(pilot, lambda: screen.session.info or screen.session.problem, "an answer")
        await pilot.pause(0.3)
        assert "^G" in painted(app) and "pull smollm2" in painted(app).replace("\n", " ")
        if screen.session.problem:
            screen.message.text = "Hello?"
            await pilot.press("enter")
            await until(pilot, lambda: screen.writing and screen.writing.ended, "the refusal")
            await pilot.pause()
            assert texts(screen) == ["Hello?"] and "Hello?" in painted(app)


PULLING = """
import sys
from tfm.core.engine import protocol as p
info = p.ModelInfo(name="smollm2", path="", family="decoder-only", n_parameters=1, vocab_size=9,
                   max_positions=64, size_bytes=1, chat=True)
there = []
for line in sys.stdin.buffer:
    r = p.decode_request(line)
    said = []
    if isinstance(r, p.Hello):
        said = [p.Welcome(id=r.id, version=r.version, app_version="", device="cpu", host="",
                          pid=1, threads=1)]
    elif isinstance(r, p.ModelsList):
        said = [p.ModelsListed(id=r.id, models=tuple(there)), p.Done(id=r.id)]
    elif isinstance(r, p.ModelsPull) and r.name == "smollm2":
        there.append(info)
        said = [p.LoadProgress(id=r.id, fraction=0.5, stage="downloading"), p.ModelPulled(id=r.id, info=info),
                p.Done(id=r.id)]
    elif isinstance(r, p.ModelLoad):
        said = [p.ModelLoaded(id=r.id, info=info, device="cpu", precision="fp32", seconds=0), p.Done(id=r.id)]
    for event in said:
        sys.stdout.buffer.write(p.encode(event))
    sys.stdout.buffer.flush()
"""


async def test_the_suggested_model_is_fetched_and_used() -> None:
    app = TfmApp([sys.executable, "-c", PULLING], mode="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.sessions["chat"].problem, "the answer that there is none")
        await pilot.pause(0.2)
        assert "no model to chat with" in painted(app)
        await pilot.press("ctrl+g")
        await until(pilot, lambda: app.sessions["chat"].info, "the model")
        await pilot.pause(0.2)
        assert "smollm2" in painted(app) and "^G" not in painted(app)


# --------------------------------------------------------------------------- what is painted
async def test_hostile_text_is_shown_and_does_nothing(home: Path) -> None:
    talk = Conversation(system=HOSTILE, stop=(HOSTILE,))
    first = talk.add(Turn(role="user", text=HOSTILE))
    talk.add(Turn(role="assistant", text=HOSTILE * 3, parent=first, model=HOSTILE, reason="length"))
    talk.add(Turn(role="assistant", text="other", parent=first, model="m", reason="eos"))
    chats().save(talk)
    async with driven(ChatScreen, None, (120, 40)) as (screen, pilot):
        await pilot.press("f7", "tab", "left", "c")
        await until(pilot, lambda: isinstance(pilot.app.screen, SessionsScreen), "the list")
        await pilot.pause(0.2)
        seen = painted(pilot.app)
        await pilot.press("escape", "ctrl+t")
        await pilot.pause(0.2)
        seen += painted(pilot.app)
        await pilot.press("escape")
        await pilot.pause(0.2)
        seen += painted(pilot.app)
        assert "[@click=app.leave]leave[/]" in seen and "[b]x[/b]" in seen
        assert not set(seen) & set("\x1b\x07\x9b\u202e\u2066\u200b")
        assert pilot.app.is_running and screen.is_mounted


def rows_of(screen: ChatScreen) -> list[str]:
    """What the transcript's box shows, read from what is painted."""
    region = screen.transcript.content_region
    strips = screen._compositor.render_strips()[region.y : region.bottom]
    return [strip.crop(region.x, region.right).text.replace(CURSOR, "").rstrip() for strip in strips]


async def settled(screen: ChatScreen, pilot: Pilot[int]) -> list[str]:
    """What stands there once nothing moves any more, however busy the machine is."""
    seen: list[list[str]] = []
    for _ in range(100):
        await pilot.pause(0.1)
        seen = [*seen[-3:], rows_of(screen)]
        at_end = screen.transcript.scroll_y == screen.transcript.max_scroll_y
        if at_end and len(seen) == 4 and all(rows == seen[0] for rows in seen):
            break
    return seen[-1]


async def test_a_token_costs_little_and_leaves_nothing_behind() -> None:
    async with driven(ChatScreen, None) as (screen, pilot):
        transcript = screen.transcript
        transcript.show([TurnView("you", ["Hello?"]), TurnView("m", [], live=True)])
        await pilot.pause(0.3)
        costs: list[int] = []
        app = pilot.app
        assert isinstance(app, TfmApp)
        sent(app, screen._compositor.render_update(full=True))
        partial = screen._compositor.render_partial_update

        def counted() -> ChopsUpdate | None:
            update = partial()
            if update is not None:
                costs.append(len(sent(app, update).encode()))
            return update

        screen._compositor.render_partial_update = counted  # type: ignore[method-assign]
        tokens = [" Mann", " in", " einem", " bla", "uen", " Hemd", " steht", " auf"] * 4
        for token in tokens:  # one a frame, the dearest case
            transcript.append(1, token)
            await pilot.pause(0.03)
        assert sum(costs) / len(tokens) < 35
        shown = " ".join(row.strip() for row in rows_of(screen)[4:] if row.strip())
        assert shown == "".join(tokens).strip()


@pytest.mark.parametrize("columns", [30, 61, 120])
async def test_what_is_painted_is_the_text_whatever_arrives(columns: int) -> None:
    """Wide characters, emoji that grow, combining marks, right-to-left, line feeds, a window that scrolls."""
    async with driven(ChatScreen, None, (columns, 24)) as (screen, pilot):
        transcript = screen.transcript
        transcript.show([TurnView("you", ["Hello?"]), TurnView("m", [], live=True)])
        for n in range(12):
            for token in (
                "中文",
                "字 ab",
                "cde\u0301",
                " 👩\u200d",
                "👧 x",
                " lang" * 6,
                "\n",
                "שלום ",
                " e\u0301",
            ):
                transcript.append(1, token)
            if n % 3 == 0:
                await asyncio.sleep(0.05)
        minimal = await settled(screen, pilot)
        transcript.refresh()
        assert await settled(screen, pilot) == minimal
        assert any("中文字" in row for row in minimal)
        assert minimal[-1] == "" and "e\u0301" in "".join(minimal)  # the end is in sight, with room below


async def test_other_versions_shrink_and_grow_the_page() -> None:
    async with driven(ChatScreen, None) as (screen, pilot):
        transcript: Transcript = screen.transcript
        long = ["word "] * 400
        for pieces in (long, ["short"], long, ["a\n\n\nb"], []):
            transcript.show([TurnView("you", ["Hello?"]), TurnView("m", pieces, note="1 of 2")])
            await pilot.pause(0.2)
            rows = rows_of(screen)
            transcript.refresh()
            await pilot.pause(0.1)
            assert rows_of(screen) == rows
            if pieces is not long:
                assert "Hello?" in "\n".join(rows)


async def test_resizes_down_to_one_cell_survive() -> None:
    rng = random.Random(3)
    talk = Conversation(system="x")
    first = talk.add(Turn(role="user", text="中文 " * 40))
    talk.add(Turn(role="assistant", text="word " * 300 + "\n\nend", parent=first, model="m", reason="length"))
    chats().save(talk)
    async with driven(ChatScreen, None) as (screen, pilot):
        await pilot.press("tab")
        for n in range(40):
            await pilot.resize_terminal(rng.choice([1, 2, 5, 30, 80, 200]), rng.choice([1, 2, 5, 24, 60]))
            if n % 4 == 0:
                screen.transcript.append(1, "more 字\n")
        await pilot.resize_terminal(80, 24)
        await pilot.pause(0.2)
        assert "more 字" in "".join(rows_of(screen))
