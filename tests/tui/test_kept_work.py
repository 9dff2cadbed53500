"""What is done in a mode is saved as it grows and there again at the next start."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tui.driving import HOSTILE, NO_ENGINE, driven, painted, press_now, until
from tfm.core.engine import protocol
from tfm.tui.app import TfmApp
from tfm.tui.client import Answer, EngineClient
from tfm.tui.exchange import Exchange
from tfm.tui.export import Block, Page, as_markdown, notebook_json, notebook_page
from tfm.tui.gaps import MASK
from tfm.tui.notebook import RIVALS_KEPT, Notebook
from tfm.tui.screens.fill import FillScreen
from tfm.tui.screens.prompt import Prompt
from tfm.tui.screens.sessions import SessionsScreen
from tfm.tui.screens.translate import TranslateScreen
from tfm.tui.search import Match, find, overlay, pattern_of
from tfm.tui.session import Session
from tfm.tui.transcript_svg import as_svg
from tfm.tui.widgets.sampling_panel import Decoding
from tfm.tui.works import fills, translations


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TFM_HOME", str(tmp_path))
    return tmp_path


def token(position: int, piece: str, logprob: float = -1.0) -> protocol.Token:
    rival = protocol.Candidate(token=3, piece="x", raw=0.1, final=0.2)
    return protocol.Token(
        id=1, lane=0, position=position, token=7, piece=piece, logprob=logprob, entropy=0.5, probability=0.4,
        top=(rival,),
    )  # fmt: skip


def exchange(source: str, pieces: list[str]) -> Exchange:
    made = Exchange(source, Decoding(seed=3), "m")
    made.tokens[made.places[0]] += [token(n, piece) for n, piece in enumerate(pieces)]
    return made


# --------------------------------------------------------------------------- files
@given(
    sources=st.lists(st.text(min_size=1).filter(str.strip), max_size=4),
    pieces=st.lists(st.text(), max_size=5),
)
@settings(deadline=None, max_examples=60)
def test_a_notebook_comes_back_as_it_was(sources: list[str], pieces: list[str]) -> None:
    clean = [source.encode("utf-8", "replace").decode() for source in sources]
    book = Notebook(decoding=Decoding(method="beam"), draft="half a sen")
    for source in clean:
        book.add(exchange(source, [piece.encode("utf-8", "replace").decode() for piece in pieces]))
    again = msgspec.json.decode(msgspec.json.encode(book), type=Notebook)
    assert [one.tokens for one in again.exchanges] == [one.tokens for one in book.exchanges]
    assert [one.source for one in again.exchanges] == clean
    assert [one.text for one in again.exchanges] == [one.text for one in book.exchanges]
    assert all(one.ended and one.cancelled for one in again.exchanges)  # the app ended before they did
    assert (again.decoding, again.draft, again.shown) == (book.decoding, book.draft, book.shown)


def test_old_exchanges_let_go_of_rivals_and_keep_their_words() -> None:
    book = Notebook()
    for number in range(RIVALS_KEPT + 2):
        book.add(exchange(f"text {number}", ["a", "b"]))
    assert [bool(one.tokens[0][0].top) for one in book.exchanges].count(False) == 2
    assert book.exchanges[0].text == "ab"


@pytest.mark.parametrize(
    "broken",
    [
        {"exchanges": [{"source": "a\nb", "decoding": {}, "tokens": [[]]}]},
        {"shown": 3},
        {"exchanges": [{"source": 1}]},
    ],
)
def test_a_notebook_that_makes_no_sense_is_a_sentence(broken: dict[str, object]) -> None:
    store = translations()
    store.folder.mkdir(parents=True)
    path = store.folder / "x.json"
    path.write_text(json.dumps(broken))
    with pytest.raises(ValueError, match="damaged and was left as it is"):
        store.open("x")
    latest, damaged = store.reopened()
    assert latest is None and damaged and path.read_text() == json.dumps(broken)


# --------------------------------------------------------------------------- finding
def test_capitals_matter_where_the_query_has_some() -> None:
    assert find(pattern_of("hund"), ["Ein Hund", "hund hund"]) == [
        Match(0, 4, 8), Match(1, 0, 4), Match(1, 5, 9)
    ]  # fmt: skip
    assert find(pattern_of("Hund"), ["Ein Hund", "hund"]) == [Match(0, 4, 8)]
    assert find(pattern_of("a.b (c"), ["a.b  (c axb (c"]) == [Match(0, 0, 7)]


@given(
    st.lists(st.text("ab \n", min_size=1, max_size=6), min_size=1, max_size=4), st.sampled_from(["a", "ab"])
)
def test_marking_changes_no_character(parts: list[str], query: str) -> None:
    text = "".join(parts)
    matches = find(pattern_of(query), [text])
    spans = overlay([(part, str(n)) for n, part in enumerate(parts)], 0, matches, None)
    assert "".join(part for part, _ in spans) == text
    marked = [style == "found" for part, style in spans for _ in part]
    assert marked == [any(m.start <= n < m.end for m in matches) for n in range(len(text))]


# --------------------------------------------------------------------------- export
def test_an_svg_holds_the_text_and_nothing_that_acts() -> None:
    page = Page(
        HOSTILE, "", (Block("m <b>", "ok 안녕 & so", pieces=(("ok ", 0.05), ("안녕", 0.9), (" & so", None))),)
    )
    svg = as_svg(page)
    root = ElementTree.fromstring(svg)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "안녕 & so" in texts and "ok " in texts and "how sure: " in texts
    assert "\x1b" not in svg and "\u202e" not in svg and "onload" not in svg


def test_translations_are_written_out_as_pairs() -> None:
    book = Notebook()
    book.add(exchange("A dog.", ["Ein", " Hund."]))
    assert json.loads(notebook_json(book))["pairs"] == [{"source": "A dog.", "target": "Ein Hund."}]
    text = as_markdown(notebook_page(book))
    assert "A dog." in text and "Ein Hund." in text and "seed 3" in text and "stopped" not in text


# --------------------------------------------------------------------------- on the screen
async def test_translations_are_there_again(tiny_translator: Path) -> None:
    async with driven(TranslateScreen, tiny_translator) as (screen, pilot):
        screen.source.text = "A man in a boat."
        press_now(pilot, "enter")
        await until(pilot, lambda: screen.exchange is not None and screen.exchange.ended, "a translation")
        assert screen.exchange is not None
        text, tokens = screen.exchange.text, screen.exchange.tokens
        await pilot.press("escape", "T", "s")
        await until(pilot, lambda: screen.panel.decoding.seed != 1, "another seed")
        decoding = screen.panel.decoding
        screen.source.text = "A half-written"
        await until(pilot, lambda: screen.book.draft == "A half-written", "the draft")
    async with driven(TranslateScreen, None) as (screen, pilot):
        await until(pilot, lambda: screen.exchange is not None, "the last translation")
        assert screen.exchange is not None
        assert (screen.exchange.text, screen.exchange.tokens) == (text, tokens)
        assert screen.panel.decoding == decoding and screen.source.text == "A half-written"
        await pilot.press("escape", "end")
        assert screen.target.selected == (0, len(tokens[0]) - 1)


async def test_sessions_are_listed_named_and_deleted(tiny_translator: Path) -> None:
    store = translations()
    for source in ("First text", "Second text"):
        book = Notebook()
        book.add(exchange(source, ["Ein", " Satz"]))
        store.save(book)
    async with driven(TranslateScreen, None, (100, 30)) as (screen, pilot):
        await until(pilot, lambda: screen.exchange is not None, "the last session")
        await pilot.press("escape", "c")
        await until(pilot, lambda: isinstance(pilot.app.screen, SessionsScreen), "the list")
        await until(pilot, lambda: "First text" in painted(pilot.app), "the sessions")
        await pilot.press("d")
        await until(pilot, lambda: "is open" in painted(pilot.app), "a refusal: it is on the screen")
        await pilot.press("down", "d")
        await until(pilot, lambda: "d again" in painted(pilot.app), "a question")
        await pilot.press("d")
        await until(pilot, lambda: len(store.keys()) == 1, "one session less")
        await pilot.press("r")
        await until(pilot, lambda: isinstance(pilot.app.screen, Prompt), "the name")
        await pilot.press(*"mine", "enter")
        await until(pilot, lambda: screen.book.name.endswith("mine"), "its name")
        await pilot.press("ctrl+n")
        await until(pilot, lambda: screen.exchange is None and not screen.target.text, "an empty session")
    assert store.listed()[0].title.endswith("mine")


async def test_words_are_found_in_every_text_of_a_session() -> None:
    book = Notebook()
    book.add(exchange("one", ["Ein", " Hund", " und", " ein", " Hund"]))
    book.add(exchange("two", ["Zwei", " Katzen"]))
    translations().save(book)
    async with driven(TranslateScreen, None, (100, 30)) as (screen, pilot):
        await until(pilot, lambda: screen.exchange is not None, "the session")
        await pilot.press("escape", "slash")
        await until(pilot, lambda: isinstance(pilot.app.screen, Prompt), "the question")
        await pilot.press(*"vogel", "enter")
        await until(pilot, lambda: "stands nowhere" in painted(pilot.app), "nothing found")
        await pilot.press(*(["backspace"] * 5), *"hund", "enter")
        await until(pilot, lambda: screen.exchange is book_part(screen, 0), "the text that has it")
        assert "2 of 2" in painted(pilot.app)
        assert len(screen.target.matches()) == 2
        await pilot.press("n")
        await until(pilot, lambda: "1 of 2" in painted(pilot.app), "the next place")
        await pilot.press("escape")
        assert not screen.target.matches()


def book_part(screen: TranslateScreen, number: int) -> Exchange:
    return screen.book.exchanges[number]


async def test_a_filled_text_is_there_again(tiny_filler: Path) -> None:
    async with driven(FillScreen, tiny_filler) as (screen, pilot):
        screen.source.text = f"A {MASK} in a boat."
        await until(pilot, lambda: screen.gap is not None and screen.gap.candidates, "candidates")
        press_now(pilot, "enter")
        await pilot.pause()
        await pilot.press("2")
        await until(pilot, lambda: screen.gap is not None and screen.gap.taken, "a taken word")
        text = screen.gaps.text
    assert len(fills().keys()) == 1
    async with driven(FillScreen, None) as (screen, _):
        assert screen.gaps.text == text and screen.source.text == f"A {MASK} in a boat."


async def test_the_app_begins_in_the_mode_that_it_was_left_in(home: Path) -> None:
    async with driven(TranslateScreen, None) as (_, pilot):
        await pilot.press("f3")
        await until(pilot, lambda: isinstance(pilot.app.screen, FillScreen), "the other mode")
    async with TfmApp(NO_ENGINE).run_test() as pilot:
        await until(pilot, lambda: isinstance(pilot.app.screen, FillScreen), "the mode of the last time")


def test_a_model_that_is_gone_is_not_asked_for() -> None:
    listed = tuple(
        protocol.ModelInfo(name=name, path=name, family="encoder-decoder", n_parameters=1, vocab_size=1,
                           max_positions=1, size_bytes=1)
        for name in ("a", "en-de", "z")
    )  # fmt: skip

    class Client(EngineClient):
        async def ask(self, message: protocol.Request, answer: type[Answer]) -> Answer:
            found = protocol.ModelsListed(id=1, models=listed)
            assert isinstance(found, answer)
            return found

    async def first(remembered: str) -> str:
        session = Session(Client(NO_ENGINE), None, lambda: None)
        session.remembered = remembered
        return await session._first_choice()

    assert [asyncio.run(first(name)) for name in ("z", "gone", "")] == ["z", "en-de", "en-de"]
