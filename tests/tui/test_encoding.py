"""A work that is being written is saved as it was at one moment, and reads back equal."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tfm.core.engine import protocol
from tfm.tui.conversation import Conversation, Turn
from tfm.tui.encoding import PIECE, pieces, snapshot
from tfm.tui.exchange import Exchange
from tfm.tui.notebook import Notebook
from tfm.tui.widgets.sampling_panel import Decoding

PIECES = st.text(max_size=5)  # the byte 0 among them


def token(number: int, piece: str) -> protocol.Token:
    rival = protocol.Candidate(token=number, piece=piece, raw=0.5, final=0.25, removed_by="top_p")
    return protocol.Token(
        id=1, lane=0, position=number, token=number, piece=piece, logprob=-0.5, entropy=1.0, probability=0.5,
        top=(rival,),
    )  # fmt: skip


def encoded(value: object) -> bytes:
    return b"".join(pieces(value))


def notebook(texts: list[list[list[str]]]) -> Notebook:
    """By exchange, by line, the pieces of its tokens."""
    work = Notebook(key="here", name="a name", draft="not yet")
    for lines in texts:
        exchange = Exchange("\n".join(f"line {n}" for n in range(len(lines))), Decoding())
        for place, texts_of in enumerate(lines):
            exchange.tokens[place] += [token(number, piece) for number, piece in enumerate(texts_of)]
        work.add(exchange)
    return work


@given(st.lists(st.lists(st.lists(PIECES, max_size=4), min_size=1, max_size=3), max_size=3))
@settings(deadline=None)
def test_a_notebook_reads_back_equal(texts: list[list[list[str]]]) -> None:
    work = notebook(texts)
    whole = msgspec.json.encode(work)
    back, wanted = (msgspec.json.decode(data, type=Notebook) for data in (encoded(snapshot(work)), whole))
    assert msgspec.json.encode(back) == msgspec.json.encode(wanted)
    assert msgspec.json.encode(work) == whole  # it is what it was


@given(st.lists(PIECES, max_size=3), st.integers(0, 2 * PIECE + 1))
@settings(deadline=None, max_examples=30)
def test_a_long_list_in_pieces_is_the_same_list(pieces: list[str], n_turns: int) -> None:
    talk = Conversation(turns=[Turn(role="user", text=piece) for piece in pieces])
    assert msgspec.json.decode(encoded(snapshot(talk)), type=Conversation) == talk
    tokens = [token(number, "x") for number in range(n_turns)]
    assert msgspec.json.decode(encoded(snapshot(tokens)), type=list[protocol.Token]) == tokens


def test_what_is_written_after_the_snapshot_is_not_in_it() -> None:
    work = notebook([[["a", "b"], []]])
    image = snapshot(work)
    before = msgspec.json.encode(work)
    work.exchanges[0].tokens[0].append(token(2, "c"))
    work.exchanges[0].problem = "lost"
    work.add(Exchange("more", Decoding()))
    work.name = "another"
    assert msgspec.json.encode(image) == before != msgspec.json.encode(work)
