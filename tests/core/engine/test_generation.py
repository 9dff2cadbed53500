"""Generation through a real engine process: streamed, cancelled, tuned, interleaved, resumed."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tfm.core.checkpoint import Checkpoint, load_checkpoint
from tfm.core.engine import protocol
from tfm.core.engine.protocol import Done, Generate, Lane, LaneDone, Token
from tfm.core.generate import LaneFinished, generate
from tfm.core.sampling.settings import PRESETS, SamplingSettings
from tfm.core.search import BeamFinished, beam_search

Engine = Any  # tests/core/engine/conftest.py: EngineProcess

SOURCE = "A man in a blue shirt is standing on a ladder."
HOT = SamplingSettings(temperature=1.5, top_k=50)
GREEDY = PRESETS["greedy"]
LONG = 100  # tokens; random weights seldom end by themselves


def unending(*settings: SamplingSettings, seed: int = 0) -> tuple[Lane, ...]:
    """Lanes that never draw the end, so that a test knows how long they run."""
    return tuple(
        Lane(prompt=SOURCE, settings=one.replace(banned=(2,)), seed=seed + i)
        for i, one in enumerate(settings)
    )


def in_process(checkpoint: Checkpoint, lanes: tuple[Lane, ...], max_tokens: int) -> list[tuple[int, ...]]:
    records = generate(checkpoint, lanes, max_tokens=max_tokens)
    ends = {record.lane: record.tokens for record in records if isinstance(record, LaneFinished)}
    return [ends[lane] for lane in range(len(lanes))]


def tokens_of(events: list[protocol.Event], request: int, lane: int = 0) -> list[Token]:
    return [e for e in events if isinstance(e, Token) and (e.id, e.lane) == (request, lane)]


def lanes_done(events: list[protocol.Event], request: int) -> dict[int, LaneDone]:
    return {e.lane: e for e in events if isinstance(e, LaneDone) and e.id == request}


@pytest.mark.parametrize("family", ["tiny_translator", "tiny_decoder"])
def test_streams_what_generate_gives_in_process(
    engine: Engine, family: str, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(family)
    lanes = (*unending(HOT, GREEDY, PRESETS["creative"]), Lane(prompt="Two men.", settings=HOT, seed=5))
    events = engine.ask(Generate(id=1, model=str(path), lanes=lanes, max_tokens=30, n_top=3, trace=True))
    ends = lanes_done(events, 1)
    expected = in_process(load_checkpoint(path), lanes, 30)
    assert [ends[lane].tokens for lane in range(4)] == expected
    for lane in range(4):
        stream = tokens_of(events, 1, lane)
        assert tuple(event.token for event in stream) == ends[lane].tokens
        assert [event.position for event in stream] == list(range(len(stream)))
        assert "".join(event.piece for event in stream) == ends[lane].text
        assert all(len(event.top) == 3 and event.trace for event in stream)
        assert ends[lane].logprob == pytest.approx(sum(event.logprob for event in stream))
    done = events[-1]
    assert isinstance(done, Done)
    assert done.n_tokens == sum(len(tokens) for tokens in expected)
    assert done.tokens_per_second > 0


def test_cancel_keeps_what_is_there(engine: Engine, tiny_translator: Path) -> None:
    model = str(tiny_translator)
    engine.send(Generate(id=1, model=model, lanes=unending(HOT, HOT), max_tokens=LONG))
    first = engine.next()
    assert isinstance(first, Token)
    engine.send(protocol.Cancel(id=2, target=1))
    events = [first, *engine.until(1, 2)]
    ends = lanes_done(events, 1)
    assert {end.reason for end in ends.values()} == {"cancelled"}
    for lane in (0, 1):
        stream = tokens_of(events, 1, lane)
        assert 0 < len(stream) < LONG
        assert tuple(event.token for event in stream) == ends[lane].tokens
    done = next(event for event in events if isinstance(event, Done) and event.id == 1)
    assert done.detail["cancelled"] is True
    acknowledged = next(event for event in events if isinstance(event, Done) and event.id == 2)
    assert acknowledged.detail == {"found": True}
    assert engine.ask(Generate(id=3, model=model, lanes=unending(HOT), max_tokens=3))


def test_a_request_that_waits_can_be_cancelled(own_engine: Engine, tiny_translator: Path) -> None:
    model = str(tiny_translator)  # torch is not there yet, so the request waits
    own_engine.send(
        Generate(id=1, model=model, lanes=unending(HOT), max_tokens=LONG),
        protocol.Cancel(id=2, target=1),
    )
    events = own_engine.until(1, 2)
    assert not tokens_of(events, 1)
    done = next(event for event in events if isinstance(event, Done) and event.id == 1)
    assert done.detail == {"cancelled": True}
    assert lanes_done(own_engine.ask(Generate(id=1, model=model, lanes=unending(HOT), max_tokens=2)), 1)


def test_tune_acts_from_the_next_token_on(engine: Engine, tiny_translator: Path) -> None:
    """Before the mark the lane follows its first settings, from the mark on the new ones."""
    model, checkpoint = str(tiny_translator), load_checkpoint(tiny_translator)
    lanes = unending(HOT, HOT)
    cold = GREEDY.replace(banned=(2,))
    engine.send(Generate(id=1, model=model, lanes=lanes, max_tokens=LONG))
    early = [engine.next() for _ in range(6)]
    engine.send(protocol.Tune(id=2, target=1, settings=cold, lane=1))
    events = [*early, *engine.until(1, 2)]
    untouched, tuned = tokens_of(events, 1, 0), tokens_of(events, 1, 1)
    assert not any(event.settings_mark for event in untouched)
    marks = [event.position for event in tuned if event.settings_mark]
    assert len(marks) == 1 and 3 <= marks[0] < LONG
    assert [event.settings for event in tuned if event.settings_mark] == [cold]
    tokens = tuple(event.token for event in tuned)
    hot, other = in_process(checkpoint, lanes, LONG)[1], in_process(checkpoint, lanes, LONG)[0]
    assert tuple(event.token for event in untouched) == other
    assert tokens[: marks[0]] == hot[: marks[0]]
    rest = Lane(prompt=SOURCE, settings=cold, seed=lanes[1].seed, prefix=tokens[: marks[0]])
    assert tokens == in_process(checkpoint, (rest,), LONG - marks[0])[0]


def test_a_knob_that_is_not_there_is_refused_and_the_lane_goes_on(
    engine: Engine, tiny_translator: Path
) -> None:
    engine.send(Generate(id=1, model=str(tiny_translator), lanes=unending(HOT), max_tokens=LONG))
    engine.send(protocol.Tune(id=2, target=1, settings=GREEDY, lane=1))
    events = engine.until(1, 2)
    error = next(event for event in events if isinstance(event, protocol.Error))
    assert error.id == 2 and "no lane 1" in error.message
    assert len(tokens_of(events, 1)) == LONG


def test_requests_take_turns(engine: Engine, tiny_translator: Path, tiny_decoder: Path) -> None:
    """Neither of two requests waits for the other, on two models, and each gets its own result."""
    for index, path in enumerate((tiny_translator, tiny_decoder)):
        engine.ask(protocol.ModelLoad(id=index, model=str(path)))
    engine.send(
        Generate(id=1, model=str(tiny_translator), lanes=unending(HOT), max_tokens=LONG),
        Generate(id=2, model=str(tiny_decoder), lanes=unending(HOT, HOT, HOT), max_tokens=LONG // 2),
    )
    events = engine.until(1, 2)
    # The first hundred tokens hold dozens of steps of both, whoever was first.
    shares = Counter(event.id for event in [e for e in events if isinstance(e, Token)][:100])
    assert shares[1] >= 15 and shares[2] >= 45
    for index, path, lanes, n in (
        (1, tiny_translator, unending(HOT), LONG),
        (2, tiny_decoder, unending(HOT, HOT, HOT), LONG // 2),
    ):
        ends = lanes_done(events, index)
        assert [ends[lane].tokens for lane in range(len(lanes))] == in_process(
            load_checkpoint(path), lanes, n
        )


@pytest.mark.parametrize("family", ["tiny_translator", "tiny_decoder"])
def test_going_back_reuses_what_was_computed(
    engine: Engine, family: str, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(family)
    checkpoint, model = load_checkpoint(path), str(path)
    (lane,) = unending(HOT)
    first = engine.ask(Generate(id=1, model=model, lanes=(lane,), max_tokens=40))
    written = lanes_done(first, 1)[0].tokens
    # ten tokens back, another branch
    back = Lane(prompt=SOURCE, settings=lane.settings, seed=9, prefix=written)
    again = engine.ask(protocol.Resample(id=2, model=model, lane=back, keep=30, max_tokens=10))
    fork = Lane(prompt=SOURCE, settings=lane.settings, seed=9, prefix=written[:30])
    assert lanes_done(again, 2)[0].tokens == in_process(checkpoint, (fork,), 10)[0]
    assert [event.position for event in tokens_of(again, 2)] == list(range(30, 40))
    assert again[-1].detail["reused_tokens"] >= 30
    # a token put there by hand
    chosen = (written[30] + 1) % 200 + 100
    by_hand = engine.ask(protocol.Resample(id=3, model=model, lane=back, keep=30, token=chosen, max_tokens=5))
    forced = Lane(prompt=SOURCE, settings=lane.settings, seed=9, prefix=(*written[:30], chosen))
    assert lanes_done(by_hand, 3)[0].tokens == in_process(checkpoint, (forced,), 5)[0]
    assert by_hand[-1].detail["reused_tokens"] >= 30


def test_beams_are_streamed_and_the_best_one_ends(engine: Engine, tiny_translator: Path) -> None:
    sources = ("A man in a blue shirt.", "Two men.", "A boy wearing headphones sits.")
    events = engine.ask(
        protocol.Beam(id=1, model=str(tiny_translator), sources=sources, width=3, max_tokens=12)
    )
    expected = beam_search(load_checkpoint(tiny_translator), sources, width=3, max_tokens=12)
    best = {end.source: end.hypotheses[0] for end in expected if isinstance(end, BeamFinished)}
    ends = lanes_done(events, 1)
    for lane in range(len(sources)):
        steps = [e for e in events if isinstance(e, protocol.BeamStep) and e.lane == lane]
        assert [step.position for step in steps] == list(range(1, len(steps) + 1))
        assert all(0 < len(step.hypotheses) <= 3 for step in steps)
        assert (ends[lane].text, ends[lane].tokens) == (best[lane].text, best[lane].tokens)
        assert ends[lane].score == pytest.approx(best[lane].score)
    engine.send(protocol.Beam(id=2, model=str(tiny_translator), sources=(SOURCE,), width=4, max_tokens=LONG))
    assert isinstance(engine.next(), protocol.BeamStep)
    engine.send(protocol.Cancel(id=3, target=2))
    assert lanes_done(engine.until(2, 3), 2)[0].reason == "cancelled"


def test_what_generate_refuses_is_an_error_and_the_engine_lives(
    engine: Engine, tiny_translator: Path
) -> None:
    model = str(tiny_translator)
    lane, no_such_token = unending(HOT)[0], SamplingSettings(banned=(10**6,))
    wrong: list[tuple[protocol.Request, str]] = [
        (Generate(id=1, model=model, lanes=()), "lanes"),
        (Generate(id=2, model=model, lanes=(Lane(prompt="word " * 20_000),)), "at most"),
        (Generate(id=3, model=model, lanes=(Lane(prompt=""),)), "empty"),
        (Generate(id=4, model=model, lanes=(lane,), max_tokens=0), "max_tokens"),
        (Generate(id=5, model=model, lanes=(lane,), stop=("",)), "stop"),
        (Generate(id=6, model=model, lanes=(Lane(prompt="x", prefix=(10**6,)),)), "token id"),
        (Generate(id=7, model=model, lanes=(Lane(prompt="x", settings=no_such_token),)), "banned"),
        (protocol.Resample(id=8, model=model, lane=lane, keep=3), "keep"),
        (protocol.Beam(id=9, model=model, sources=()), "source"),
        (protocol.Beam(id=10, model=model, sources=("A man.",), width=0), "wide"),
    ]
    for request, said in wrong:
        *before, error = engine.ask(request)
        assert isinstance(error, protocol.Error) and error.kind == "bad_request", (request, error)
        assert said in error.message and not before
    assert lanes_done(engine.ask(Generate(id=11, model=model, lanes=(lane,), max_tokens=2)), 11)


def test_a_checkpoint_replaced_on_disk_is_read_again(
    engine: Engine, tiny_translator: Path, tmp_path: Path, tiny_decoder: Path
) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(tiny_translator, folder)
    lanes = unending(GREEDY)
    before = lanes_done(engine.ask(Generate(id=1, model=str(folder), lanes=lanes, max_tokens=10)), 1)
    assert before[0].tokens == in_process(load_checkpoint(tiny_translator), lanes, 10)[0]
    shutil.rmtree(folder)
    shutil.copytree(tiny_decoder, folder)
    after = lanes_done(engine.ask(Generate(id=2, model=str(folder), lanes=lanes, max_tokens=10)), 2)
    assert after[0].tokens == in_process(load_checkpoint(tiny_decoder), lanes, 10)[0]


def test_the_end_of_input_stops_a_generation(own_engine: Engine, tiny_translator: Path) -> None:
    own_engine.send(Generate(id=1, model=str(tiny_translator), lanes=unending(HOT), max_tokens=LONG))
    assert isinstance(own_engine.next(), Token)
    assert own_engine.end() == 0
    assert b"Traceback" not in own_engine.stderr


def test_a_reader_that_goes_away_ends_it(own_engine: Engine, tiny_translator: Path) -> None:
    own_engine.send(Generate(id=1, model=str(tiny_translator), lanes=unending(*[HOT] * 8), max_tokens=LONG))
    assert isinstance(own_engine.next(), Token)
    own_engine.hung_up = True
    assert own_engine.process.wait(60) == 0
    assert b"Traceback" not in own_engine.stderr


def test_output_that_nobody_takes_does_not_keep_it_alive(tiny_translator: Path) -> None:
    """The pipe is full, the engine is stuck in a write, then its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from tfm.core.engine.server import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    lanes = unending(*[HOT] * 64)
    process.stdin.write(
        protocol.encode(Generate(id=1, model=str(tiny_translator), lanes=lanes, max_tokens=LONG, n_top=50))
    )
    process.stdin.flush()
    assert process.stdout.read(1)  # it has begun; one step of 64 lanes is more than a pipe holds
    process.stdin.close()
    assert process.wait(60) == 0
    process.stdout.close()


def test_a_killed_engine_is_seen_by_its_reader(own_engine: Engine, tiny_translator: Path) -> None:
    own_engine.send(Generate(id=1, model=str(tiny_translator), lanes=unending(HOT), max_tokens=LONG))
    assert isinstance(own_engine.next(), Token)
    own_engine.process.send_signal(signal.SIGKILL)
    while own_engine.events.get(timeout=60) is not None:  # what was under way arrives in whole lines
        pass
    assert own_engine.process.wait(60) == -signal.SIGKILL
