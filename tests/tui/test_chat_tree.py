"""Conversations as trees, replies as they are written, and the files that they are kept in."""

from __future__ import annotations

import json
import os
import random
import stat
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfm.core.engine import protocol
from tfm.core.sampling.settings import PRESETS, SamplingSettings
from tfm.tui import replies
from tfm.tui.conversation import TOP, Conversation, ConversationHead, Turn
from tfm.tui.export import as_markdown, chat_json, chat_page, export
from tfm.tui.replies import Heard
from tfm.tui.screens.chat_view import facts, turn_views
from tfm.tui.store import Store
from tfm.tui.widgets.sampling_panel import Decoding

INFO = protocol.ModelInfo(
    name="m",
    path="m",
    family="decoder-only",
    n_parameters=1,
    vocab_size=9,
    max_positions=64,
    size_bytes=1,
    chat=True,
)
MODEL = protocol.ModelLoaded(id=1, info=INFO, device="cpu", precision="fp32", seconds=0)
WARM = Decoding(settings=PRESETS["balanced"], seed=7)


def texts(talk: Conversation) -> list[str]:
    return [talk.turns[number].text for number in talk.path]


def token(lane: int, position: int, piece: str, **fields: object) -> protocol.Token:
    return msgspec.convert(
        {"event": "token", "id": 1, "lane": lane, "position": position, "token": position + 10,
         "piece": piece, "logprob": -1.0, "entropy": 1.0, "probability": 0.5, **fields},
        protocol.Token,
    )  # fmt: skip


def done(
    lane: int, text: str, tokens: tuple[int, ...], reason: str = "eos", **fields: object
) -> protocol.LaneDone:
    return msgspec.convert(
        {"event": "lane.done", "id": 1, "lane": lane, "reason": reason, "text": text, "tokens": tokens,
         "logprob": -1.0, "n_prompt": 5, **fields},
        protocol.LaneDone,
    )  # fmt: skip


def asked(text: str = "Hello?") -> tuple[Conversation, int]:
    talk = Conversation(seed=7)
    return talk, talk.add(Turn(role="user", text=text))


# --------------------------------------------------------------------------- the tree
def test_nothing_that_was_said_is_lost() -> None:
    talk, first = asked("one")
    answer = talk.add(Turn(role="assistant", text="two", parent=first, reason="eos"))
    talk.add(Turn(role="user", text="three", parent=answer))
    other = talk.edit(first, "uno")
    assert texts(talk) == ["uno"] and talk.versions(other) == [first, other]
    talk.add(Turn(role="assistant", text="due", parent=other, reason="eos"))
    assert talk.step(other, -1) == first
    assert texts(talk) == ["one", "two", "three"]
    assert talk.step(first, 1) == other and texts(talk) == ["uno", "due"]
    assert talk.edit(other, "uno") == other  # the same words are the same turn
    edited = talk.edit(talk.path[1], "tre")
    assert talk.turns[edited].reason == "edited" and talk.turns[edited].can_go_on
    assert texts(talk) == ["uno", "tre"]


def test_messages_are_the_turns_on_the_screen_behind_the_system_prompt() -> None:
    talk, first = asked("one")
    answer = talk.add(Turn(role="assistant", text="two", parent=first))
    assert [m["role"] for m in talk.messages(answer)] == ["user", "assistant"]
    talk.system = "Be kind."
    assert talk.messages(answer)[0] == {"role": "system", "content": "Be kind."}
    assert [talk.turn_of_message(index, answer) for index in range(3)] == [None, first, answer]
    assert talk.messages(TOP) == ({"role": "system", "content": "Be kind."},)


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_whatever_is_done_it_stays_a_tree_that_can_be_saved(seed: int, n_steps: int) -> None:
    rng = random.Random(seed)
    talk = Conversation()
    for step in range(n_steps):
        what = rng.choice(["say", "say", "edit", "step", "copy", "remove"])
        if what == "say" or not talk.turns:
            parent = talk.last
            role = "user" if parent == TOP or talk.turns[parent].role == "assistant" else "assistant"
            talk.add(Turn(role=role, text=str(step), parent=parent))  # type: ignore[arg-type]
        elif what == "edit":
            talk.edit(rng.choice(talk.path), f"edited {step}")
        elif what == "step":
            talk.step(rng.randrange(len(talk.turns)), rng.choice([-1, 1]))
        elif what == "copy":
            talk.copy(rng.choice(talk.path))
        elif not any(turn.parent == len(talk.turns) - 1 for turn in talk.turns):
            talk.remove_last()
        again = msgspec.json.decode(msgspec.json.encode(talk), type=Conversation)
        assert again == talk and again.path == talk.path
        if talk.turns:
            assert talk.path and talk.turns[talk.last].shown == -1
        for number in range(len(talk.turns)):  # every turn can be brought back with all that led to it
            before = talk.before(number)
            for turn in (*before, number):
                talk.show(turn)
            assert talk.path[: len(before) + 1] == [*before, number]


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    """A folder for conversations and nothing else."""
    folder = tmp_path / "saved"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    "turns",
    [
        [{"role": "user", "parent": 0}],
        [{"role": "user", "parent": -2}],
        [{"role": "user", "shown": 5}],
        [{"role": "user", "shown": 0}],
        [{"role": "user"}, {"role": "user"}],
    ],
)
def test_files_that_hold_no_tree_are_refused(turns: list[dict[str, object]], chats: Path) -> None:
    store = Store(Conversation, ConversationHead, chats)
    shown = 0 if len(turns) == 1 else 7
    (chats / "x.json").write_text(json.dumps({"turns": turns, "shown": shown}))
    with pytest.raises(ValueError, match="is damaged and was left as it is"):
        store.open("x")
    assert store.listed()[0].problem and store.reopened()[0] is None


# --------------------------------------------------------------------------- replies
def test_several_replies_have_seeds_of_their_own() -> None:
    talk, first = asked()
    talk.n_replies = 3
    writing = replies.reply(talk, first, WARM, {})
    request = writing.request(MODEL)
    assert [lane.seed for lane in request.lanes] == [7, 8, 9]
    assert all(lane.messages == talk.messages(first) and not lane.prefix for lane in request.lanes)
    assert request.max_tokens == 63  # no more than the context takes
    for lane in (2, 0, 1):
        writing.apply(token(lane, 0, f"r{lane}"))
        writing.apply(done(lane, f"r{lane}", (10, 2)))
    writing.close()
    assert texts(talk) == ["Hello?", "r0"]  # the first one, whichever came first
    talk.step(talk.path[1], 2)
    assert texts(talk) == ["Hello?", "r2"]
    assert talk.new_seeds(first, WARM.settings, 2) == [10, 11]
    assert talk.new_seeds(first, PRESETS["greedy"], 1) == [
        7
    ]  # other settings: the same noise tells them apart


def test_a_cut_reply_goes_on_from_its_tokens_in_its_place() -> None:
    talk, first = asked()
    heard: Heard = {}
    writing = replies.reply(talk, first, WARM, heard)
    writing.apply(token(0, 0, "It"))
    writing.apply(done(0, "It", (10,), "cancelled"))
    writing.close()
    number = talk.last
    assert talk.turns[number].can_go_on
    more = replies.go_on(talk, number, WARM, heard)
    (lane,) = more.request(MODEL).lanes
    assert lane.prefix == (10,) and lane.messages == talk.messages(first)
    more.apply(token(0, 1, " is"))
    assert talk.turns[number].text == "It is"
    assert replies.pieces(talk.turns[number], heard[number]) == (["It", " is"], 0)
    more.apply(done(0, "It is.", (10, 11, 2)))
    more.close()
    assert talk.last == number and not talk.turns[number].can_go_on
    assert replies.pieces(talk.turns[number], heard[number]) == (["It", " is."], 0)


def test_a_reply_with_something_behind_it_goes_on_as_a_copy() -> None:
    talk, first = asked()
    number = talk.add(Turn(role="assistant", text="It", tokens=(10,), parent=first, reason="length"))
    talk.add(Turn(role="user", text="Go on?", parent=number))
    replies.go_on(talk, number, WARM, {})
    assert texts(talk) == ["Hello?", "It"] and talk.last != number
    assert talk.turns[number].reason == "length"
    talk.step(talk.last, -1)
    assert texts(talk) == ["Hello?", "It", "Go on?"]


def test_an_edited_reply_goes_on_from_its_words() -> None:
    talk, first = asked()
    talk.add(Turn(role="assistant", text="It is", tokens=(10, 11), parent=first, reason="eos"))
    number = talk.edit(talk.last, "She was")
    heard: Heard = {}
    writing = replies.go_on(talk, number, WARM, heard)
    (lane,) = writing.request(MODEL).lanes
    assert lane.messages[-1] == {"role": "assistant", "content": "She was"} and lane.prefix == ()
    writing.apply(token(0, 2, " here"))
    assert replies.pieces(talk.turns[number], heard[number]) == (["She was", " here"], 1)
    writing.close("the engine died")  # its tokens are not all known, so its words count again
    assert talk.turns[number].tokens == () and talk.turns[number].text == "She was here"
    assert talk.turns[number].can_go_on


def test_taking_a_rival_keeps_what_was_before_it() -> None:
    talk, first = asked()
    heard: Heard = {}
    rivals = [
        {"token": 50, "piece": " was", "raw": 0.2, "final": 0.0, "removed_by": "top_p"},
        {"token": 11, "piece": " is", "raw": 0.7, "final": 1.0},
    ]
    writing = replies.reply(talk, first, WARM, heard)
    for event in (token(0, 0, "It"), token(0, 1, " is", top=rivals), token(0, 2, " so")):
        writing.apply(event)
    writing.apply(done(0, "It is so", (10, 11, 12, 2)))
    writing.close()
    number = talk.last
    with pytest.raises(ValueError, match="2 candidates"):
        replies.take(talk, number, 1, 3, WARM, heard)
    taken = replies.take(talk, number, 1, 2, WARM, heard)  # ranks as they are shown: the likeliest first
    (lane,) = taken.request(MODEL).lanes
    assert lane.prefix == (10, 50) and lane.seed == talk.turns[number].seed
    assert texts(talk) == ["Hello?", "It was"] and len(talk.versions(number)) == 2
    assert list(turn_views(talk, heard, [talk.last])[1].pieces) == ["It", " was"]


def test_a_reply_that_never_began_leaves_no_trace() -> None:
    talk, first = asked()
    talk.add(Turn(role="assistant", text="before", parent=first, reason="eos"))
    talk.n_replies = 2
    heard: Heard = {}
    replies.reply(talk, first, WARM, heard).close("no engine")
    assert texts(talk) == ["Hello?", "before"] and len(talk.turns) == 2 and not heard
    talk, first = asked()
    writing = replies.reply(talk, first, WARM, heard)
    writing.apply(done(0, "", (), "cancelled"))
    writing.close()
    assert texts(talk) == ["Hello?"]
    writing = replies.reply(talk, first, WARM, heard)
    writing.apply(token(0, 0, "It"))
    writing.close("the engine died")
    assert texts(talk) == ["Hello?", "It"] and talk.turns[talk.last].reason == "lost"


def test_what_the_context_had_no_room_for_is_marked() -> None:
    talk = Conversation(system="Be kind.")
    for n in range(3):
        parent = talk.add(Turn(role="user", text=f"q{n}", parent=talk.last))
        writing = replies.reply(talk, parent, WARM, {})
        writing.apply(done(0, f"a{n}", (10, 2), dropped_turns=[1, 2] if n == 2 else []))
        writing.close()
    views = turn_views(talk, {}, [])
    assert [view.left_out for view in views] == [True, True, False, False, False, False]
    assert "context is full" in views[0].note
    told = facts(talk, 64)
    assert (told.used, told.context, told.n_dropped) == (7, 64, 2)


# --------------------------------------------------------------------------- files
def full() -> Conversation:
    talk, first = asked("What is\nthis?")
    talk.system = "Be kind."
    cold = SamplingSettings(temperature=0.5)
    talk.add(
        Turn(role="assistant", text="A *test* <b>", parent=first, model="m", seed=3, settings=cold,
             tokens=(5, 6), reason="length")
    )  # fmt: skip
    return talk


def test_saved_and_opened_again(chats: Path) -> None:
    store = Store(Conversation, ConversationHead, chats / "chats")
    talk = full()
    store.save(talk)
    path = store.path(talk.key)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not list(path.parent.glob(".*"))
    assert Store(Conversation, ConversationHead, chats / "chats").open(talk.key) == talk
    (listed,) = store.listed()
    assert (listed.title, listed.size, listed.problem) == ("What is this?", 2, "")


def test_two_windows_do_not_overwrite_each_other(chats: Path) -> None:
    one, other = (
        Store(Conversation, ConversationHead, chats),
        Store(Conversation, ConversationHead, chats),
    )
    talk = full()
    one.save(talk)
    theirs = other.open(talk.key)
    theirs.add(Turn(role="user", text="theirs", parent=theirs.last))
    other.save(theirs)
    talk.add(Turn(role="user", text="ours", parent=talk.last))
    one.save(talk)
    assert talk.key != theirs.key and len(one.keys()) == 2
    assert texts(one.open(theirs.key))[-1] == "theirs" and texts(other.open(talk.key))[-1] == "ours"


def test_a_full_disk_leaves_the_old_file(chats: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(Conversation, ConversationHead, chats)
    talk = full()
    store.save(talk)
    before = store.path(talk.key).read_bytes()

    def no_room(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    talk.turns[0].text = "changed"
    with pytest.raises(OSError, match="No space"):
        store.save(talk)
    assert store.path(talk.key).read_bytes() == before and len(list(chats.iterdir())) == 1


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"format": "other"}', b"\xff\xfe", b'{"turns": [{}]}'])
def test_damaged_files_are_a_sentence_and_the_next_one_opens(data: bytes, chats: Path) -> None:
    store = Store(Conversation, ConversationHead, chats)
    talk = full()
    store.save(talk)
    (chats / "damaged.json").write_bytes(data)
    os.utime(chats / "damaged.json", (2**32, 2**32))  # the newest
    with pytest.raises(ValueError, match=r"damaged\.json is damaged and was left as it is"):
        store.open("damaged")
    latest = store.reopened()[0]
    assert latest is not None and latest.key == talk.key


def test_exported_for_people_and_for_programs(chats: Path) -> None:
    talk = full()
    talk.key = "k"
    markdown, plain, svg = export("chat-k", chat_page(talk), chat_json(talk), chats / "out")
    assert markdown.read_text() == as_markdown(chat_page(talk))
    assert "> Be kind." in as_markdown(chat_page(talk)) and "## m\n\nA *test* <b>" in as_markdown(
        chat_page(talk)
    )
    assert "2 tokens · seed 3 · temperature 0.5 · cut at its longest" in as_markdown(chat_page(talk))
    whole = json.loads(plain.read_text())
    assert whole["messages"] == [dict(m) for m in talk.messages(talk.last)]
    assert msgspec.convert(whole["conversation"], Conversation) == talk
    assert json.loads(chat_json(talk)) == whole
    assert "A *test* &lt;b&gt;" in svg.read_text()
    ElementTree.parse(svg)
    assert (
        export("chat-k", chat_page(talk), chat_json(talk), chats / "out")[0] != markdown
    )  # nothing is written over
