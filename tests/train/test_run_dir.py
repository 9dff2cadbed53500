"""The run directory, on real files: ids, state, event log, control inbox."""

from __future__ import annotations

import itertools
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfm.train import events
from tfm.train.control_inbox import ControlInbox
from tfm.train.event_log import EventLog, EventReader
from tfm.train.events import CommandDone, Evaluated, Notice, RunEnded, RunStarted, Step
from tfm.train.run_dir import RunDir, RunLocked, list_runs, runs_home


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create("name = 'x'\n", "en-de", tmp_path / "runs")


def started(total: int = 100, resumed_from: int | None = None) -> RunStarted:
    return RunStarted(
        run="r", objective="translation", n_parameters=1, total_steps=total, steps_per_epoch=10,
        device="cpu", precision="fp32", resumed_from=resumed_from,
    )  # fmt: skip


def step(number: int) -> Step:
    return Step(
        step=number, epoch=0.1, loss=3.0, nll=2.5, accuracy=0.4, grad_norm=1.0, learning_rate=1e-3,
        tokens=1000, tokens_per_second=10.0, seconds=5.0,
    )  # fmt: skip


# --------------------------------------------------------------------------- folders and names
def test_a_new_run_is_private_and_its_id_begins_with_its_name(run: RunDir) -> None:
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o700
    assert run.id.startswith("en-de-")
    assert run.config_path.read_text() == "name = 'x'\n"


def test_runs_of_the_same_minute_get_different_folders(tmp_path: Path) -> None:
    ids = {RunDir.create("", "en-de", tmp_path).id for _ in range(5)}
    assert len(ids) == 5


def test_the_home_of_runs_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFM_HOME", str(tmp_path))
    assert runs_home() == tmp_path / "runs"
    run = RunDir.create("", "a")
    assert run.path.parent == tmp_path / "runs"
    assert RunDir.open(run.id).path == run.path
    assert RunDir.open(run.path).path == run.path


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".hidden", "a\0b"])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="plain folder name"):
        RunDir.create("", name, tmp_path)


def test_a_home_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot create a run in .*file.*TFM_HOME"):
        RunDir.create("", "a", tmp_path / "file")


@pytest.mark.parametrize("typed", ["en-dee", "en-de", "ende"])
def test_an_unknown_run_names_its_near_misses(run: RunDir, typed: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean {run.id}"):
        RunDir.open(typed, run.path.parent)


@pytest.mark.parametrize("typed", ["", ".", "..", "zzz", "../..", "/nowhere"])
def test_what_is_no_run_is_refused(run: RunDir, typed: str) -> None:
    with pytest.raises(ValueError, match="no run"):
        RunDir.open(typed, run.path.parent)


def test_only_committed_checkpoints_count_and_they_sort_by_number(run: RunDir) -> None:
    for number in (1_000_000, 500, 20_000):
        folder = run.checkpoint_path(number)
        folder.mkdir()
        (folder / "MANIFEST.json").write_text("{}")
    run.checkpoint_path(700).mkdir()  # no manifest: never committed
    (run.path / ".tmp-step-000800").mkdir()
    (run.path / ".tmp-step-000800" / "model.safetensors").write_text("half")
    (run.path / ".tmp-file").write_text("half")
    assert [folder.name for folder in run.checkpoints()] == ["step-000500", "step-020000", "step-1000000"]
    assert sorted(run.sweep()) == [".tmp-file", ".tmp-step-000800"]
    assert not list(run.path.glob(".tmp-*"))
    assert len(run.checkpoints()) == 3


# --------------------------------------------------------------------------- lock and state
def test_the_second_owner_is_refused_with_the_name_of_the_first(run: RunDir) -> None:
    with run.lock(), pytest.raises(RunLocked, match=f":{os.getpid()}"), RunDir.open(run.path).lock():
        pass
    with run.lock():  # and it is free again afterwards
        assert run.is_locked()
    assert not run.is_locked()
    assert run.owner() is None


def test_looking_at_a_lock_never_refuses_a_trainer(run: RunDir) -> None:
    looker = (
        "import sys; from tfm.train.run_dir import RunDir\nwhile True: RunDir.open(sys.argv[1]).is_locked()"
    )
    lookers = [subprocess.Popen([sys.executable, "-c", looker, run.path]) for _ in range(2)]
    try:
        time.sleep(1.0)
        for _ in range(50):
            with run.lock():
                pass
    finally:
        for process in lookers:
            process.kill()
            process.wait()


def test_the_state_follows_what_happens(run: RunDir) -> None:
    assert run.state() == "running"  # just made: its trainer is on the way
    with run.lock():
        log = EventLog(run)
        log.append(started())
        log.append(step(20))
        assert run.state() == "running"
        log.append(CommandDone(command_id="1", command="pause", step=20))
        assert run.state() == "paused"
        log.append(CommandDone(command_id="2", command="resume", ok=False))
        assert run.state() == "paused"
        log.append(CommandDone(command_id="3", command="resume", step=20))
        assert run.state() == "running"
    assert run.state() == "lost"
    for reason, state in (("stopped", "stopped"), ("failed", "failed"), ("time", "finished")):
        with run.lock():
            log.append(started(resumed_from=20))
            assert run.state() == "running"
            log.append(RunEnded(reason=reason, step=30))  # type: ignore[arg-type]
        assert run.state() == state
    log.close()


def test_a_run_that_never_came_to_life_is_lost(run: RunDir) -> None:
    long_ago = time.time() - 3600
    os.utime(run.path, (long_ago, long_ago))
    assert run.state() == "lost"


def test_a_list_of_runs_shows_how_far_they_are(tmp_path: Path) -> None:
    first, second = (RunDir.create("", name, tmp_path) for name in ("one", "two"))
    (tmp_path / "no-run").mkdir()
    with first.lock():
        log = EventLog(first)
        log.append(started(total=500))
        log.append(step(40))
        log.append(Evaluated(step=40, loss=3.0, perplexity=20.0, accuracy=0.4, bleu=10.0, best=True))
        log.append(Evaluated(step=40, loss=3.5, perplexity=30.0, accuracy=0.5, bleu=9.0))
        infos = {info.run: info for info in list_runs(tmp_path)}
    log.close()
    assert set(infos) == {first.id, second.id}
    info = infos[first.id]
    assert (info.step, info.total_steps, info.state) == (40, 500, "running")
    assert info.owner.endswith(f":{os.getpid()}")
    assert info.best == {"loss": 3.0, "perplexity": 20.0, "accuracy": 0.5, "bleu": 10.0}
    assert list_runs(tmp_path / "nowhere") == []


# --------------------------------------------------------------------------- the event log
def test_numbers_go_on_where_the_log_ends(run: RunDir) -> None:
    for first in (0, 3):
        log = EventLog(run)
        assert log.n_before == first
        seqs = [log.append(step(i)).seq for i in range(3)]
        log.close()
        assert seqs == [first, first + 1, first + 2]
    assert [events.decode(line).seq for line in EventReader(run.events_path).poll()] == list(range(6))


def test_a_reader_waits_for_the_end_of_a_line(run: RunDir) -> None:
    reader = EventReader(run.events_path)
    assert reader.poll() == []  # not there yet
    line = events.encode(step(1)).decode()
    with open(run.events_path, "w", newline="") as file:
        file.write(line + line[:30])
        file.flush()
        assert reader.poll() == [line.strip()]
        assert reader.poll() == []
        file.write(line[30:])
        file.flush()
        assert reader.poll() == [line.strip()]
    assert reader.bad_lines == 0


def test_bad_lines_are_counted_and_passed_over(run: RunDir) -> None:
    good = events.encode(step(1))
    bad = [b"{\n", b"\xff\xfe\n", b'{"type":"unknown"}\n', b'{"type":"step","step":"x"}\n', b"null\n"]
    run.events_path.write_bytes(good + b"".join(bad) + b"\n" + good)
    reader = EventReader(run.events_path)
    assert len(reader.poll()) == 2
    assert reader.bad_lines == len(bad)


def test_a_torn_line_costs_only_itself(run: RunDir) -> None:
    whole = events.encode(msgspec.structs.replace(step(1), seq=7))
    run.events_path.write_bytes(whole + events.encode(step(2))[:25])
    log = EventLog(run)
    assert log.append(step(3)).seq == 8
    log.close()
    reader = EventReader(run.events_path)
    assert [getattr(events.decode(line), "step", None) for line in reader.poll()] == [1, 3]
    assert reader.bad_lines == 1


def test_a_log_that_was_replaced_by_a_shorter_one_is_read_anew(run: RunDir) -> None:
    run.events_path.write_bytes(events.encode(step(1)) * 3)
    reader = EventReader(run.events_path)
    assert len(reader.poll()) == 3
    run.events_path.write_bytes(events.encode(step(2)))
    assert len(reader.poll()) == 1


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    messages=st.lists(st.text(max_size=40), min_size=1, max_size=8),
    cuts=st.lists(st.integers(0, 4000), max_size=6),
)
def test_any_text_in_any_pieces_comes_back_as_it_was(
    tmp_path: Path, messages: list[str], cuts: list[int]
) -> None:
    run = RunDir.create("", "text", tmp_path)
    log = EventLog(run)
    written = [log.append(Notice(level="info", message=message)) for message in messages]
    log.close()
    data = run.events_path.read_bytes()
    assert data.count(b"\n") == len(messages)
    growing = run.path / "growing.jsonl"
    growing.touch()
    reader = EventReader(growing)
    read: list[events.TrainEvent] = []
    borders = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    for begin, end in itertools.pairwise(borders):
        with open(growing, "ab") as file:
            file.write(data[begin:end])
        read += map(events.decode, reader.poll())
    assert read == written
    assert reader.bad_lines == 0


# --------------------------------------------------------------------------- the control inbox
def test_commands_come_in_the_order_they_were_sent_and_once(run: RunDir) -> None:
    inbox = ControlInbox(run)
    ids = [inbox.send("learning_rate", {"factor": 0.5, "steps": i}) for i in range(20)]
    assert ids == sorted(ids)
    taken = ControlInbox(run).take()
    assert [command.id for command in taken] == ids
    assert [command.args["steps"] for command in taken] == list(range(20))
    assert inbox.take() == []


def test_an_unknown_command_is_refused_before_it_is_sent(run: RunDir) -> None:
    with pytest.raises(ValueError, match=r"no command 'jump': choose from pause, .*stop"):
        ControlInbox(run).send("jump")
    assert ControlInbox(run).take() == []


def test_what_is_no_command_is_set_aside_and_named(run: RunDir) -> None:
    inbox = ControlInbox(run)
    name = "0" * 26
    (run.control_path / f"{name}.json").write_text('{"command": "stop"')
    (run.control_path / f"{name[:-1]}1.json").write_text('{"command": "jump", "args": {}}')
    (run.control_path / f"{name[:-1]}2.json").write_bytes(b"\xff")
    (run.control_path / f"{name[:-1]}3.json").write_text('{"command": "stop", "also": 1}')
    os.mkfifo(run.control_path / f"{name[:-1]}4.json")
    (run.control_path / f"{name[:-1]}5.json").symlink_to("/dev/zero")
    (run.control_path / f"{name[:-1]}6.json").mkdir()
    (run.control_path / f"{name[:-1]}7.json").write_bytes(b" " * (2 << 20))
    (run.control_path / "hello.json").write_text('{"command": "stop"}')
    (run.control_path / ".tmp-0.json-ab").write_text("half")  # somebody is writing it
    wanted = inbox.send("save")
    assert [(command.id, command.command) for command in inbox.take()] == [(wanted, "save")]
    assert len(inbox.problems) == 9
    assert all("set aside" in problem for problem in inbox.problems)
    assert inbox.take() == []
    assert inbox.problems == []
    assert len(list((run.control_path / "rejected").iterdir())) == 9


def test_a_log_is_read_once_however_often_it_is_listed(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EventLog(run)
    for number in range(1, 51):
        log.append(step(number))
    before = run.info()
    assert before.step == 50
    decoded: list[str] = []
    decode = events.decode
    monkeypatch.setattr(events, "decode", lambda line: (decoded.append(line), decode(line))[1])
    log.append(Evaluated(step=50, loss=0.5, perplexity=1.6, accuracy=0.5))
    assert (before.best, run.info().best["loss"]) == ({}, 0.5)
    assert run.info().step == 50
    assert len(decoded) <= 2  # by the reader, and to be added
    log.close()
    run.events_path.write_bytes(
        run.events_path.read_bytes().splitlines(keepends=True)[0]
    )  # the same file, cut
    assert (run.info().step, run.info().best) == (1, {})
    run.events_path.unlink()
    assert run.info().step == 0
