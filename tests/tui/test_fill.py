"""Fill: gaps in a text, and the screen on a real engine."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfm.core.engine.protocol import Candidate, MaskFill
from tfm.tui.gaps import MASK, GapText, put, word_at
from tfm.tui.screens.fill import ORDERS, FillScreen
from tfm.tui.widgets.gap_view import CandidateList

from .driving import HOSTILE, driven, painted, until


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TFM_HOME", str(tmp_path))
    return tmp_path


def word(piece: str, raw: float = 0.5) -> Candidate:
    return Candidate(token=hash(piece) % 1000, piece=piece, raw=raw, final=raw)


# --------------------------------------------------------------------------- gaps
def test_words_stand_where_masks_stood() -> None:
    gaps = GapText("A [MASK] in the <mask>[MASK].\n[MASK] dog")
    assert gaps.request() == ("A [MASK] in the [MASK][MASK].\n[MASK] dog", [0, 1, 2, 3])
    for number, piece in enumerate((" man", " sn", "ow", " The")):
        gaps.take(number, word(piece))
    assert gaps.text == "A man in the snow.\nThe dog"
    assert gaps.request([1]) == ("A man in the [MASK]ow.\nThe dog", [1])
    assert [piece for piece, number in gaps.filled() if number is not None] == ["man", "sn", "ow", "The"]
    gaps.open(0)
    assert gaps.request()[0].startswith("A [MASK] in the snow")


@pytest.mark.parametrize(
    ("text", "piece", "expected"),
    [
        ("A ", " man", "A man"),
        ("A", " man", "A man"),
        ("A ", "s", "As"),
        ("", " The", "The"),
        ("x\n  ", " The", "x\nThe"),
        ("(", "the", "(the"),
        ("字", "字", "字字"),
    ],
)
def test_a_piece_brings_its_own_space(text: str, piece: str, expected: str) -> None:
    assert put(text, piece) == expected


@given(
    st.lists(st.text("ab [MASK]\n", max_size=12), min_size=1, max_size=5),
    st.lists(st.sampled_from([" x", "y", " Zed", ""]), max_size=5),
)
def test_pieces_joined_are_the_text_the_model_is_asked_about(parts: list[str], pieces: list[str]) -> None:
    gaps = GapText(MASK.join(parts))
    for number, piece in enumerate(pieces[: len(gaps.gaps)]):
        gaps.take(number, word(piece))
    taken = min(len(pieces), len(gaps.gaps))
    asked, masks = gaps.request()
    assert masks == list(range(taken, len(gaps.gaps))) and asked.count(MASK) >= len(masks)
    if taken == len(gaps.gaps):
        assert gaps.text == asked


def test_edits_keep_what_was_taken_elsewhere() -> None:
    old = GapText("A [MASK] in a [MASK] on a [MASK].")
    for number in range(3):
        old.take(number, word(f" w{number}"))
    for text, expected in (
        ("A [MASK] in a [MASK] on a [MASK]!", [" w0", " w1", " w2"]),
        ("A [MASK] in a [MASK] [MASK] on a [MASK].", [" w0", None, None, " w2"]),
        ("[MASK] on a [MASK].", [None, " w2"]),
        ("A [MASK]", [" w0"]),
        ("B", []),
    ):
        new = GapText(text)
        new.inherit(old)
        found = [gap.taken.piece if gap.taken else None for gap in new.gaps]
        assert [f for f, e in zip(found, expected, strict=True) if e is not None] == [
            e for e in expected if e
        ], text


def test_the_word_under_the_cursor() -> None:
    line = "A man's [MASK], ein Mädchen"
    assert word_at(line, 3) == (2, 7) == word_at(line, 7)
    assert word_at(line, 10) == (8, 14)
    assert word_at(line, 25) == (20, 27)
    assert word_at(line, 17) == (16, 19) and word_at("  ", 1) is None


def test_answers_go_to_the_gaps_that_were_open() -> None:
    gaps = GapText("[MASK] b [MASK]")
    gaps.take(0, word(" x"))
    gaps.answer(gaps.request()[1], [MaskFill(position=2, candidates=(word(" y"),), entropy=0.5)])
    assert gaps.gaps[1].shown == word(" y") and gaps.gaps[1].entropy == 0.5 and not gaps.gaps[0].candidates


# --------------------------------------------------------------------------- the screen
async def test_mask_take_walk_and_draw(tiny_filler: Path) -> None:
    async with driven(FillScreen, tiny_filler) as (screen, pilot):
        await until(pilot, lambda: all(gap.candidates for gap in screen.gaps.gaps), "the example filled")
        assert "of 2" in painted(pilot.app) and "[MASK]" in painted(pilot.app)

        await pilot.press("ctrl+l", *"Two men here", "ctrl+t")  # the word before the cursor
        assert screen.source.text == "Two men [MASK]" and screen.gaps.gaps[0].hidden == "here"
        await until(pilot, lambda: screen.gaps.gaps[0].candidates, "an answer")
        await pilot.press("ctrl+t")
        assert screen.source.text == "Two men here"
        await pilot.press("ctrl+t", "home", "ctrl+t")
        assert screen.source.text == "[MASK] men [MASK]"
        await until(pilot, lambda: all(gap.candidates for gap in screen.gaps.gaps), "both answers")
        await until(pilot, lambda: "you had Two: " in painted(pilot.app), "the word that was there")

        await pilot.press("enter", "3")
        first = screen.gaps.gaps[0]
        assert first.taken == first.candidates[2] and first.by_hand
        assert screen.filled.here == 1  # on to the mask that is still open
        await pilot.press("h", "down", "enter")
        assert first.taken == first.candidates[1]
        await pilot.press("ctrl+r")
        await until(pilot, lambda: screen.gaps.gaps[1].taken and not screen._drawing, "the draw")
        assert first.by_hand and not screen.gaps.gaps[1].by_hand
        seeds = {screen.gaps.gaps[1].taken}
        for _ in range(4):
            before = screen.panel.decoding.seed
            await pilot.press("ctrl+r")
            await until(pilot, lambda: not screen._drawing, "the draw")
            assert screen.panel.decoding.seed == before + 1
            seeds.add(screen.gaps.gaps[1].taken)
        assert len(seeds) > 1
        await pilot.press("N")
        assert not any(gap.taken for gap in screen.gaps.gaps)


@pytest.mark.parametrize("order", ORDERS)
async def test_draws_repeat_whatever_the_order(order: str, tiny_filler: Path) -> None:
    async with driven(FillScreen, tiny_filler) as (screen, pilot):
        screen.source.text = "A [MASK] in [MASK] and [MASK] or [MASK]."
        await until(pilot, lambda: len(screen.gaps.gaps) == 4 and screen.gaps.gaps[3].candidates, "answers")
        while screen.order != order:
            screen.action_order()
        drawn = []
        for _ in range(2):
            screen.action_open_all()
            screen.action_again()
            await until(pilot, lambda: all(gap.taken for gap in screen.gaps.gaps), "the draw")
            await until(pilot, lambda: not screen._drawing, "its end")
            drawn.append(screen.gaps.text)
        assert drawn[0] == drawn[1]
        await pilot.press("enter", "u")
        assert screen.source.text == drawn[0] and not screen.gaps.gaps


async def test_knobs_show_what_they_leave(tiny_filler: Path) -> None:
    async with driven(FillScreen, tiny_filler) as (screen, pilot):
        await until(pilot, lambda: screen.gap and screen.gap.candidates, "an answer")
        await pilot.press("enter", "K")
        await until(pilot, lambda: screen.gap and screen.gap.candidates[1].removed_by == "top_k", "top-k 1")
        assert screen.gap is not None and screen.gap.candidates[0].final == 1


async def test_hostile_text_is_shown_and_does_nothing() -> None:
    async with driven(FillScreen, None, (120, 40)) as (screen, pilot):
        screen.source.text = HOSTILE + " [MASK] x"
        await pilot.pause(0.5)
        screen._problem("")
        gap = screen.gaps.gaps[0]
        gap.candidates, gap.hidden = (word(HOSTILE), word("\x1b[2J")), HOSTILE
        screen._show()
        await pilot.pause(0.2)
        seen = painted(pilot.app)
        assert "[@click=app.leave]leave[/]" in seen
        assert not set(seen) & set("\x1b\x07\x9b\u202e\u2066\u200b")
        assert pilot.app.is_running


async def test_no_model_and_no_engine_is_a_sentence_in_place() -> None:
    async with driven(FillScreen, None) as (screen, pilot):
        await until(pilot, lambda: screen.filled.problem, "the sentence")
        await pilot.pause(0.2)
        assert "Cannot start the engine" in painted(pilot.app)
        await pilot.press("tab", "1", "ctrl+r", "right", "down", "0", "a", "y")
        assert screen.query_one(CandidateList).gap is not None


async def test_resizes_down_to_one_cell_survive() -> None:
    rng = random.Random(3)
    async with driven(FillScreen, None) as (screen, pilot):
        await until(pilot, lambda: screen.filled.problem, "the sentence")
        screen._problem("")
        for number in range(2):
            screen.gaps.gaps[number].candidates = (word(" 字字"), word(" x"))
        for _ in range(40):
            await pilot.resize_terminal(rng.choice([1, 2, 5, 30, 80, 200]), rng.choice([1, 2, 5, 24, 60]))
        await pilot.resize_terminal(80, 24)
        screen._problem("")  # the engine may have failed a second time meanwhile, and been told of
        await pilot.pause(0.2)
        assert "[字字]" in painted(pilot.app)
