from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.tiny import tokenizer
from tfm.core.lane_text import LaneText


def ids(*pieces: str) -> list[int]:
    """Token ids of single characters, or of longer pieces where the tokenizer has them."""
    found = [tokenizer().token_to_id(piece) for piece in pieces]
    assert None not in found, pieces
    return [token for token in found if token is not None]


def slow(text: str, stops: tuple[str, ...], prefix: str = "") -> tuple[str, bool]:
    """Character by character: the text up to the first stop that is complete."""
    for end in range(len(prefix) + 1, len(text) + 1):
        hits = [stop for stop in stops if text[:end].endswith(stop)]
        if hits:
            return text[: end - max(map(len, hits))], True
    return text, False


# (tokens, stops, pieces given out token by token, text, stopped)
TABLE = [
    (("1", ",", "1", ",", "2"), ("1,2",), ["", "", "1,", "", ""], "1,", True),  # overlaps itself
    (("1", ",", "1", ",", "3"), ("1,2",), ["", "", "1,", "", "1,3"], "1,1,3", False),
    (("a", "b", "c"), ("b",), ["a", "", ""], "a", True),
    (("a", "b", "c"), ("abc",), ["", "", ""], "", True),
    (("a", "b"), ("abc",), ["", ""], "ab", False),  # held back until the end
    (("a", "a", "b"), ("aab", "ab"), ["", "", ""], "", True),  # complete together: the longer
    (("a", "b", "c"), ("abc", "b"), ["", "a", ""], "a", True),  # complete first
    (("a", "an", "d"), ("n",), ["a", "a", ""], "aa", True),  # in the middle of a token
    (("a", "b"), (), ["a", "b"], "ab", False),
]


@pytest.mark.parametrize(("tokens", "stops", "pieces", "text", "stopped"), TABLE)
def test_stop_strings(
    tokens: tuple[str, ...], stops: tuple[str, ...], pieces: list[str], text: str, stopped: bool
) -> None:
    lane = LaneText(tokenizer(), stops)
    assert [lane.push(token) for token in ids(*tokens)] == pieces
    rest = lane.finish()
    assert (lane.text, lane.stopped) == (text, stopped)
    assert "".join(pieces) + rest == text


PIECES = ["1", ",", "2", "a", "b", "an", "in", "e", "n", "i", "ei"]
short = st.text(alphabet="12,abnie", min_size=1, max_size=4)


@settings(max_examples=400, deadline=None)
@given(
    tokens=st.lists(st.sampled_from(PIECES), max_size=12),
    stops=st.lists(short, max_size=3).map(tuple),
    n_prefix=st.integers(0, 4),
)
def test_any_tokens_and_stops_are_the_slow_twin(
    tokens: list[str], stops: tuple[str, ...], n_prefix: int
) -> None:
    prefix, new = tokens[:n_prefix], tokens[n_prefix:]
    lane = LaneText(tokenizer(), stops, ids(*prefix))
    pieces = [lane.push(token) for token in ids(*new)]
    pieces.append(lane.finish())
    text, stopped = slow("".join(tokens), stops, "".join(prefix))
    assert (lane.text, lane.stopped) == (text, stopped)
    assert "".join(pieces) == text[len("".join(prefix)) :]


def test_nothing_is_held_back_longer_than_it_must_be() -> None:
    lane = LaneText(tokenizer(), ("abab!",))
    given_out = [lane.push(token) for token in ids("a", "b", "a", "b", "a", "b", "c")]
    assert given_out == ["", "", "", "", "ab", "", "ababc"]


def test_characters_of_several_tokens_come_whole() -> None:
    smile = tokenizer().encode("🙂")
    lane = LaneText(tokenizer(), ("🙂",))
    assert [lane.push(token) for token in smile[:-1]] == [""] * (len(smile) - 1)
    assert lane.push(smile[-1]) == "" and lane.stopped
    broken = LaneText(tokenizer())
    for token in smile[:-1]:
        broken.push(token)
    assert broken.finish() == "\ufffd"


def test_an_empty_stop_is_refused() -> None:
    with pytest.raises(ValueError, match="stop string must not be empty"):
        LaneText(tokenizer(), ("a", ""))
