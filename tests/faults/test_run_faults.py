"""What is left of a run directory when processes die, race or are hung up on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tfm.train import events
from tfm.train.control_inbox import ControlInbox
from tfm.train.event_log import EventReader
from tfm.train.run_dir import RunDir

WRITER = """
import sys
from tfm.train.event_log import EventLog
from tfm.train.run_dir import RunDir
from tfm.train.events import Notice
run = RunDir.open(sys.argv[1])
with run.lock():
    log = EventLog(run)
    print("owned", flush=True)
    for number in range(10**9):
        log.append(Notice(level="info", message="x" * (number % 5000)))
"""

HOLDER = """
import sys, time
from tfm.train.run_dir import RunDir, RunLocked
run = RunDir.open(sys.argv[1])
time.sleep(max(0.0, float(sys.argv[2]) - time.time()))
try:
    with run.lock():
        print("owned", flush=True)
        sys.stdin.read()
except RunLocked as error:
    print(error, flush=True)
"""


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create("", "r", tmp_path)


def test_a_killed_writer_loses_at_most_its_last_line(run: RunDir) -> None:
    chance = random.Random(0)
    for _ in range(8):
        with python(WRITER, run.path) as writer:
            assert writer.stdout is not None and writer.stdout.readline() == "owned\n"
            time.sleep(chance.uniform(0.0, 0.15))
            writer.kill()
        assert run.state() == "lost"
        assert not run.is_locked()
    reader = EventReader(run.events_path)
    seqs = []
    while lines := reader.poll():
        seqs += [events.decode(line).seq for line in lines]
    assert seqs == list(range(len(seqs)))
    assert len(seqs) > 100
    assert reader.bad_lines <= 8


def test_of_twenty_simultaneous_owners_one_wins(run: RunDir) -> None:
    together = time.time() + 4.0
    holders = [python(HOLDER, run.path, together) for _ in range(20)]
    try:
        words = [holder.stdout.readline().strip() for holder in holders if holder.stdout]
        winner = holders[words.index("owned")]
        refused = [word for word in words if word != "owned"]
        assert len(refused) == 19
        assert all(f":{winner.pid}" in word for word in refused), refused
        winner.send_signal(signal.SIGKILL)
        winner.wait()
        with run.lock():  # a dead owner is no owner
            pass
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()


def test_a_process_that_holds_a_dead_trainers_lock_is_reported(run: RunDir) -> None:
    code = """
import os, sys, time
from tfm.train.run_dir import RunDir
with RunDir.open(sys.argv[1]).lock():
    child = os.fork()
    if child == 0:
        time.sleep(60)
    print(child, flush=True)
    os.kill(os.getpid(), 9)
"""
    with python(code, run.path) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.wait()
        try:
            with (
                pytest.raises(ValueError, match=r"is dead but a process that it started still holds"),
                run.lock(),
            ):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_killed_sender_leaves_whole_commands_only(run: RunDir) -> None:
    code = """
import sys
from tfm.train.control_inbox import ControlInbox
from tfm.train.run_dir import RunDir
inbox = ControlInbox(RunDir.open(sys.argv[1]))
print("go", flush=True)
while True: inbox.send("prompts", {"prompts": ["x" * 5000]})
"""
    for _ in range(4):
        with python(code, run.path) as sender:
            assert sender.stdout is not None and sender.stdout.readline() == "go\n"
            time.sleep(0.1)
            sender.kill()
    inbox = ControlInbox(run)
    taken = inbox.take()
    assert taken and inbox.problems == []
    assert all(command.args == {"prompts": ["x" * 5000]} for command in taken)


def test_a_full_disk_keeps_the_log_readable(run: RunDir) -> None:
    code = """
import resource, signal, sys
from tfm.train.events import Notice
from tfm.train.event_log import EventLog
from tfm.train.run_dir import RunDir
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = EventLog(RunDir.open(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 1_000_000))
failed = 0
for number in range(100):
    try:
        log.append(Notice(level="info", message="x" * 100))
    except OSError:
        failed += 1
        if failed == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
print(failed)
"""
    with python(code, run.path) as writer:
        assert writer.communicate()[0].strip() == "3"
    reader = EventReader(run.events_path)
    seqs = [events.decode(line).seq for line in reader.poll()]
    assert seqs == list(range(97))
    assert reader.bad_lines == 1
