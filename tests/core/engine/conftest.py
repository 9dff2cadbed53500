"""A real engine process behind pipes, driven line by line."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from tfm.core.engine import protocol

ENGINE = "from tfm.core.engine.server import main; raise SystemExit(main())"
PATIENCE = 60.0  # seconds; a slow machine imports torch in ten


class EngineProcess:
    """Sends requests, sorts the events that come by the id of their request."""

    def __init__(self, code: str, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
        )
        self.events: queue.Queue[protocol.Event | None] = queue.Queue()
        self.hung_up = False  # set it, and the next event is the last that is read
        self.stderr = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._log = threading.Thread(target=self._read_log, daemon=True)
        self._log.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.put(protocol.decode_event(line))
            if self.hung_up:
                self.process.stdout.close()
                break
        self.events.put(None)

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        self.stderr = self.process.stderr.read()

    def send(self, *requests: protocol.Request) -> None:
        self.send_raw(b"".join(protocol.encode(request) for request in requests))

    def send_raw(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def next(self) -> protocol.Event:
        event = self.events.get(timeout=PATIENCE)
        assert event is not None, f"the engine has ended: {self.stderr.decode()}"
        return event

    def until(self, *ids: int, seen: Callable[[protocol.Event], None] | None = None) -> list[protocol.Event]:
        """All events up to those that close these requests."""
        got: list[protocol.Event] = []
        open_ids = set(ids)
        while open_ids:
            event = self.next()
            got.append(event)
            if seen is not None:
                seen(event)
            if isinstance(event, protocol.Done | protocol.Error):
                open_ids.discard(event.id)
        return got

    def ask(self, request: protocol.Request) -> list[protocol.Event]:
        """The events of one request, in order."""
        self.send(request)
        return [event for event in self.until(request.id) if event.id == request.id]

    def end(self, timeout: float = PATIENCE) -> int:
        """Close the input and wait: the exit status."""
        assert self.process.stdin is not None
        if not self.process.stdin.closed:
            self.process.stdin.close()
        status = self.process.wait(timeout)
        self._log.join(timeout)
        return status


Starter = Callable[..., EngineProcess]


@pytest.fixture(scope="module")
def start_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    """Starts engines with an empty $TFM_HOME; whatever still runs at the end is killed."""
    home = str(tmp_path_factory.mktemp("home"))
    started: list[EngineProcess] = []

    def start(code: str = ENGINE) -> EngineProcess:
        # On the CPU, in float32, so that its tokens are those of this process.
        environment = {"TFM_HOME": home, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        engine = EngineProcess(code, environment)
        started.append(engine)
        return engine

    yield start
    for engine in started:
        engine.process.kill()
        engine.process.wait()


@pytest.fixture(scope="module")
def engine(start_engine: Starter) -> EngineProcess:
    """One engine for all tests of a module that leave it as they found it."""
    return start_engine()


@pytest.fixture
def own_engine(start_engine: Starter) -> EngineProcess:
    """A fresh engine, for a test that looks at its start or brings its end."""
    return start_engine()
