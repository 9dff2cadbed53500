"""A line that is slow, in a real terminal: it is told of, and streamed text does not queue up in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.tui.terminal import APP, Terminal

SENTENCE = "A man in a blue shirt is standing on a ladder."


@pytest.mark.parametrize(("answer_after", "told"), [(1.2, True), (None, False)])
def test_a_slow_line_is_told_of(tiny_translator: Path, answer_after: float | None, told: bool) -> None:
    command = [*APP, "--model", str(tiny_translator)]
    with Terminal(command, columns=160, answer_after=answer_after) as terminal:
        terminal.wait_until(lambda text: "cpu · fp32" in text, "the model")
        for _ in range(2):  # an answer comes after the first, and slows the second down
            terminal.type(SENTENCE)
            terminal.press("enter")
            terminal.wait_until(lambda text: "^R again" in text and "▌" not in text, "a translation")
            for _ in range(30):
                terminal.read(0.05)
            terminal.press("ctrl+l")
        asked = terminal.raw.count(b"\x1b[6n")
        assert asked == 1 if answer_after is None else asked > 1
        found = re.search(r"slow line: (\d+) fps", terminal.text)
        assert bool(found) == told, terminal.text
        assert found is None or int(found[1]) <= 2
