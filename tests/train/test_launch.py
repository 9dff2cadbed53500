"""Trainers as processes: started, steered, stopped, killed, resumed; and the engine's handlers of runs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfm.core.engine import protocol
from tfm.train import events, launch
from tfm.train.config import load_config, parse_config
from tfm.train.control_inbox import ControlInbox
from tfm.train.event_log import EventLog, EventReader
from tfm.train.events import CheckpointSaved, CommandDone, Notice, RunEnded, RunStarted, Step, TrainEvent
from tfm.train.launch import command, is_alive, run_foreground, start_detached, stop
from tfm.train.resolve import resolve_config, to_toml
from tfm.train.run_dir import RunDir, RunLocked
from tfm.train.services import run_services
from tfm.train.training import signals_ask_to_stop

ENDLESS = {"loop.max_steps": "1000000"}


@pytest.fixture
def config(tiny_config: Path) -> Path:
    return tiny_config


@pytest.fixture
def started(config: Path) -> Iterator[RunDir]:
    """A detached trainer that goes on until it is stopped."""
    run = start_detached(config, ENDLESS)
    yield run
    kill(run)


def kill(run: RunDir) -> None:
    owner = run.owner()
    if owner is not None and owner.alive():
        os.kill(owner.pid, signal.SIGKILL)
    until(lambda: not run.is_locked())


def until(true: object, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def history(run: RunDir) -> list[TrainEvent]:
    reader, found = EventReader(run.events_path), []
    while lines := reader.poll():
        found += map(events.decode, lines)
    assert reader.bad_lines == 0
    return found


def last_step(run: RunDir) -> int:
    return max((event.step for event in history(run) if isinstance(event, Step)), default=0)


# --------------------------------------------------------------------------- configs
def test_a_resolved_config_can_be_read_from_anywhere(config: Path, tmp_path: Path) -> None:
    resolved = resolve_config(config, {"optim.learning_rate": "5e-4"})
    assert resolved.data.train_source == str(tmp_path / "pairs.en")
    assert resolved.optim.learning_rate == 5e-4
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "config.toml").write_text(to_toml(resolved))
    assert load_config(elsewhere / "config.toml") == resolved
    assert resolve_config(elsewhere / "config.toml") == resolved


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.floats(1e-12, 1.0),
    st.sampled_from([None, 1, 2, 4]),
    st.booleans(),
)
def test_any_config_survives_its_toml(text: str, rate: float, n_kv_heads: int | None, flag: bool) -> None:
    import msgspec

    raw = {
        "name": "x",
        "data": {"train_source": "a" + text, "train_target": text + "b", "lowercase": flag},
        "model": {
            "n_encoder_layers": 1,
            "n_decoder_layers": 1,
            **({"n_kv_heads": n_kv_heads} if n_kv_heads else {}),
        },
        "optim": {"learning_rate": rate},
        "loop": {"samples": [text, ""]},
    }
    config = parse_config(raw, "test")
    assert parse_config(msgspec.toml.decode(to_toml(config)), "test") == config


def test_missing_data_is_named_before_anything_is_made(config: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tiny\.toml: data\.valid_source: no file .*nothing"):
        start_detached(config, {"data.valid_source": "nothing"})
    assert not (tmp_path / "home").exists()


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(ValueError, match="name a config file"):
        start_detached(None)


# --------------------------------------------------------------------------- in this process
def test_a_run_in_the_foreground_logs_what_it_yields(config: Path) -> None:
    seen = list(run_foreground(config))
    first, last = seen[0], seen[-1]
    assert isinstance(first, RunStarted) and first.total_steps == 30
    assert isinstance(last, RunEnded) and (last.reason, last.step) == ("finished", 30)
    run = RunDir.open(first.run)
    assert history(run) == seen
    assert [event.seq for event in seen] == list(range(len(seen)))
    assert [event.step for event in seen if isinstance(event, Step)] == list(range(1, 31))
    assert run.state() == "finished"
    assert run.checkpoints()[-1].name == "step-000030"
    assert load_config(run.config_path) == resolve_config(config)
    with pytest.raises(ValueError, match="is not running: it is finished"):
        stop(run)


def test_who_stops_listening_makes_it_save(config: Path) -> None:
    training = run_foreground(config, ENDLESS)
    run = RunDir.open(next(event.run for event in training if isinstance(event, RunStarted)))
    for event in training:
        if isinstance(event, Step) and event.step == 3:
            break
    training.close()  # type: ignore[attr-defined]
    ended = history(run)[-1]
    assert isinstance(ended, RunEnded) and ended.reason == "stopped"
    assert run.checkpoints() == [run.checkpoint_path(ended.step)]
    assert run.state() == "stopped"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_stops(config: Path, number: signal.Signals) -> None:
    seen: list[TrainEvent] = []
    for event in run_foreground(config, ENDLESS):
        seen.append(event)
        if isinstance(event, Step) and event.step == 3:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), signal.SIGHUP)  # ignored while a trainer runs
    saved, ended = seen[-2:]
    assert isinstance(saved, CheckpointSaved) and saved.reason == "stop"
    assert isinstance(ended, RunEnded) and ended.reason == "stopped" and ended.step <= 4
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_does_not_wait(config: Path) -> None:
    run = RunDir.create("", "r")
    with pytest.raises(KeyboardInterrupt), signals_ask_to_stop(ControlInbox(run)):
        os.kill(os.getpid(), signal.SIGINT)
        assert [taken.command for taken in ControlInbox(run).take()] == ["stop"]
        os.kill(os.getpid(), signal.SIGTERM)  # says nothing new
        os.kill(os.getpid(), signal.SIGINT)
    assert ControlInbox(run).take() == []

    training = run_foreground(config, ENDLESS)
    next(training)
    ended = training.throw(KeyboardInterrupt())  # type: ignore[attr-defined]
    assert isinstance(ended, RunEnded) and ended.reason == "stopped" and "lost" in ended.message
    with pytest.raises(KeyboardInterrupt):
        next(training)


def test_files_of_unequal_length_fail_with_their_names(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "START_PATIENCE", 120.0)  # a busy machine
    (tmp_path / "pairs.de").write_text("too short\n")
    sentence = r"pairs\.en has 25 lines but .*pairs\.de has 1"
    seen = []
    with pytest.raises(ValueError, match=sentence):
        seen += run_foreground(config)
    with pytest.raises(ValueError, match=sentence):
        start_detached(config)
    runs = list((tmp_path / "home" / "runs").iterdir())
    assert [RunDir.open(run).state() for run in runs] == ["failed", "failed"]


# --------------------------------------------------------------------------- in a process of its own
def test_a_detached_trainer_outlives_hangups_and_obeys(started: RunDir) -> None:
    owner = started.owner()
    assert owner is not None and owner.alive()
    assert os.getsid(owner.pid) == owner.pid != os.getsid(0)
    assert started.state() == "running"
    before = last_step(started)
    for _ in range(3):
        os.killpg(owner.pid, signal.SIGHUP)
    until(lambda: last_step(started) > before, 10)
    with pytest.raises(RunLocked, match=f"already being trained by {owner}"):
        start_detached(None, resume=started.id)

    assert command(started, "pause").ok
    assert started.state() == "paused"
    assert command(started, "resume").ok
    done = command(started, "learning_rate", {"value": 2.0})
    assert not done.ok and done.message

    ended = stop(started)
    assert ended.reason == "stopped"
    assert started.checkpoints()[-1] == started.checkpoint_path(ended.step)
    until(lambda: not is_alive(started))
    assert started.state() == "stopped"

    again = start_detached(None, {"loop.max_steps": str(ended.step + 5)}, resume=started.id)
    assert again.path == started.path
    until(lambda: not is_alive(started))
    whole = history(started)
    assert [event.seq for event in whole] == list(range(len(whole)))
    restarted = [event for event in whole if isinstance(event, RunStarted)][1]
    assert restarted.resumed_from == ended.step
    assert started.info().step == ended.step + 5
    assert started.state() == "finished"
    assert load_config(started.config_path).loop.max_steps == ended.step + 5
    with pytest.raises(ValueError, match="cannot be resumed with another model"):
        start_detached(None, {"model.d_model": "64"}, resume=started.id)


def test_a_killed_trainer_is_lost_and_goes_on_from_what_it_saved(started: RunDir) -> None:
    until(lambda: len(started.checkpoints()) >= 2)
    os.kill(started.owner().pid, signal.SIGKILL)  # type: ignore[union-attr]
    until(lambda: not started.is_locked())
    assert started.state() == "lost"
    saved = started.checkpoints()[-1]
    with pytest.raises(ValueError, match=rf"is gone; `tfm-tui train --resume .*goes on from {saved.name}"):
        stop(started)
    ControlInbox(started).send("stop")  # nobody is there to take it
    start_detached(None, resume=started.path)
    until(lambda: last_step(started) > int(saved.name[5:]) + 3)
    resumed = [event for event in history(started) if isinstance(event, RunStarted)][1]
    assert saved == started.checkpoint_path(resumed.resumed_from or 0)
    dropped = [
        event for event in history(started) if isinstance(event, Notice) and "dropped" in event.message
    ]
    assert len(dropped) == 1 and "stop" in dropped[0].message

    os.kill(started.owner().pid, signal.SIGTERM)  # type: ignore[union-attr]
    until(lambda: not started.is_locked())
    ended = history(started)[-1]
    assert isinstance(ended, RunEnded) and ended.reason == "stopped"
    assert started.checkpoints()[-1] == started.checkpoint_path(ended.step)


# --------------------------------------------------------------------------- the engine's handlers
def serve(request: protocol.Request, cancelled: object = lambda: False) -> list[protocol.Event]:
    said: list[protocol.Event] = []
    run_services()[type(request)](request, said.append, cancelled)  # type: ignore[arg-type]
    return said


def test_a_run_is_started_followed_steered_and_listed(config: Path) -> None:
    (answer,) = serve(protocol.RunStart(id=1, config=str(config), overrides={"loop.max_steps": "1000000"}))
    assert isinstance(answer, protocol.RunStarting)
    run = RunDir.open(answer.run)
    try:
        (listed,) = serve(protocol.RunsList(id=2))
        assert isinstance(listed, protocol.RunsListed)
        assert [(info.run, info.state) for info in listed.runs] == [(run.id, "running")]
        assert serve(protocol.RunControl(id=3, run=run.id, command="stop")) == []
        batches = serve(protocol.RunFollow(id=4, run=run.id))  # returns once the run has ended
        lines = [line for batch in batches if isinstance(batch, protocol.RunEvents) for line in batch.lines]
        seen = [events.decode(line) for line in lines]
        assert seen == history(run)
        assert any(isinstance(event, CommandDone) and event.command == "stop" for event in seen)
        assert isinstance(seen[-1], RunEnded)
        (rest,) = serve(protocol.RunFollow(id=5, run=run.id, after_seq=seen[-2].seq))
        assert isinstance(rest, protocol.RunEvents) and rest.lines == (lines[-1],)
        with pytest.raises(ValueError, match="it is stopped"):
            serve(protocol.RunControl(id=6, run=run.id, command="stop"))
    finally:
        kill(run)


def test_following_ends_when_it_is_cancelled_and_counts_bad_lines(tmp_path: Path) -> None:
    run = RunDir.create("", "r", tmp_path)
    with run.lock():
        log = EventLog(run)
        log.append(Notice(level="info", message="one"))
        with open(run.events_path, "a") as file:
            file.write("no event\n")
        looks = iter([False, False, False, True])
        said = serve(protocol.RunFollow(id=1, run=str(run.path)), lambda: next(looks))
        log.close()
    (batch,) = said
    assert isinstance(batch, protocol.RunEvents)
    assert len(batch.lines) == 1 and batch.bad_lines == 1


def test_an_unknown_run_is_a_sentence(config: Path) -> None:
    for request in (protocol.RunFollow(id=1, run="x"), protocol.RunControl(id=1, run="x", command="stop")):
        with pytest.raises(ValueError, match="no run 'x'"):
            serve(request)
