"""Frames follow what the terminal's answers say about the line."""

from __future__ import annotations

import os
import pty
import sys
import termios
import threading

import pytest

from tfm.tui.pace import EVERY, QUESTION, SLOWEST, Pace, round_trip

if sys.platform == "win32":
    pytest.skip("pseudo-terminals", allow_module_level=True)


def test_a_fast_line_gets_every_frame_and_a_slow_one_two_in_a_round_trip() -> None:
    pace = Pace(1 / 60)
    assert pace.interval(0.0) == 1 / 60  # not measured yet
    pace.ask(0.0)
    pace.answer(0.002)
    assert pace.interval(0.01) == 1 / 60 and not pace.slow()
    pace.ask(1.0)
    pace.answer(1.4)
    assert pace.interval(1.5) == pytest.approx(0.2) and pace.slow() == "slow line: 5 fps"


def test_an_overdue_answer_slows_down_and_a_good_line_recovers() -> None:
    pace = Pace(1 / 60)
    pace.ask(0.0)
    pace.answer(0.01)
    pace.ask(1.0)
    assert not pace.wants_to_ask(1.0 + 2 * EVERY)  # one question at a time
    assert pace.answer_in(1.004) == pytest.approx(0.006) and pace.answer_in(2.0) == 0.0
    assert pace.interval(1.6) == pytest.approx(0.3)
    assert pace.interval(60.0) == SLOWEST
    pace.answer(2.0)
    now = 2.0
    for _ in range(30):
        now += 1.0
        assert pace.wants_to_ask(now)
        pace.ask(now)
        pace.answer(now + 0.001)
    assert pace.interval(now + 0.5) == 1 / 60


def test_a_terminal_that_never_answers_is_asked_once() -> None:
    pace = Pace(1 / 30)
    pace.ask(0.0)
    assert pace.interval(100.0) == 1 / 30
    assert not pace.wants_to_ask(100.0)
    pace.answer(0.0)
    pace.answer(5.0)  # an answer to nobody's question
    assert pace.round_trip == 0.0


def test_no_faster_than_the_frames_that_were_asked_for() -> None:
    pace = Pace(2.0)  # TEXTUAL_FPS below one a second
    pace.ask(0.0)
    pace.answer(0.001)
    assert pace.interval(1.0) == 2.0


def test_painting_that_is_dear_is_done_less_often() -> None:
    pace = Pace(1 / 60)
    for _ in range(40):
        pace.painted(0.05)
    assert pace.interval(0.0) == pytest.approx(0.2, rel=0.01)
    assert not pace.slow()  # that is no fault of the line
    for _ in range(40):
        pace.painted(0.001)
    assert pace.interval(0.0) == 1 / 60


@pytest.mark.parametrize("answers", [True, False])
def test_a_terminal_is_asked_once_and_left_as_it_was(answers: bool) -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)

    def terminal() -> None:
        assert os.read(master, 64) == QUESTION.encode()
        if answers:
            os.write(master, b"\x1b[24;80R")

    screen = threading.Thread(target=terminal)
    screen.start()
    took = round_trip(slave, slave, patience=5.0 if answers else 0.05)
    screen.join()
    assert (took is not None) == answers
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


async def test_the_answer_reaches_the_pace() -> None:
    from textual.events import CursorPosition

    from tfm.tui.app import TfmApp

    app = TfmApp(("/no-such-engine",))
    async with app.run_test(size=(120, 24)) as pilot:
        app.pace.ask(0.0)
        app.post_message(CursorPosition(0, 0))
        await pilot.pause()
        assert app.pace.round_trip is not None and app.pace.slow().startswith("slow line")
