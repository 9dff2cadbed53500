"""The door to the engine: a child process that speaks JSON lines (:mod:`tfm.core.engine.protocol`).

The engine is started by the first request and again by the first request after it died, so a
crash costs one message. On another machine (:mod:`tfm.tui.remote`) it is ssh that we start, and a lost
connection is taken up again by itself, at growing intervals.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec

from tfm.core.engine import protocol
from tfm.tui.flow import FRAME, READING, Allowance, Handfuls

if TYPE_CHECKING:
    from tfm.tui.remote import Box, Kind

LOCAL_ENGINE = (sys.executable, "-m", "tfm.tui.cli", "engine")
BACK_OFF = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds between tries to reach a lost box; the last one stays
RESTART_AFTER = 2.0  # seconds before an engine that was lost is started again without being asked for
LAST_WORDS = 0.5  # seconds; whoever it leaves behind may hold its stderr open for longer
_READ = 1 << 16
_LAST = (protocol.Done, protocol.Error, protocol.Welcome)  # nothing more comes with their id
Answer = TypeVar("Answer", bound=protocol.Event)


class EngineProblem(Exception):
    """Something a person must be told; ``str()`` is one sentence."""


class Refused(EngineProblem):
    """The engine lives and could not serve this request."""

    def __init__(self, error: protocol.Error) -> None:
        super().__init__(error.message)
        self.kind = error.kind


class EngineLost(EngineProblem):
    """The engine is gone, or never came up. ``kind`` says what can be done: see :mod:`tfm.tui.remote`."""

    def __init__(self, sentence: str, kind: Kind = "lost") -> None:
        super().__init__(sentence)
        self.kind = kind


class Stream:
    """The events that answer one request, in order. Raises :class:`EngineProblem` where they end badly."""

    def __init__(self, client: EngineClient, request: protocol.Request) -> None:
        self.id = request.id
        self.request = request
        self._client = client
        self._waiting: deque[protocol.Event | EngineProblem] = deque()
        self._arrived = asyncio.Event()
        self._ended = False

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> protocol.Event:
        if self._ended:
            raise StopAsyncIteration
        await self._arrived.wait()
        return self._next()

    async def handfuls(self) -> AsyncIterator[list[protocol.Event]]:
        """The same events, those that wait together: at most one handful a frame, and never so many that
        taking them in could hold up a key. For whoever shows a generation as it is written."""
        sizes = Handfuls()
        while not self._ended:
            await self._arrived.wait()
            events: list[protocol.Event] = []
            began = time.monotonic()
            problem: EngineProblem | None = None
            for _ in range(min(len(self._waiting), sizes.size(len(self._waiting)))):
                try:
                    events.append(self._next())
                except EngineProblem as ended:
                    problem = ended
                    break
                if self._ended:
                    break
            if events:
                yield events
            if problem is not None:
                raise problem
            if not self._ended:
                spent = time.monotonic() - began
                sizes.cost(len(events), spent)
                await asyncio.sleep(max(0.0, FRAME - spent))

    def _next(self) -> protocol.Event:
        """The one that has waited longest; there is one."""
        item = self._waiting.popleft()
        if not self._waiting:
            self._arrived.clear()
        self._ended = isinstance(item, (EngineProblem, *_LAST))
        if isinstance(item, EngineProblem):
            raise item
        if isinstance(item, protocol.Error):
            raise Refused(item)
        return item

    def put(self, item: protocol.Event | EngineProblem) -> None:
        self._waiting.append(item)
        self._arrived.set()

    @property
    def ended(self) -> bool:
        return self._ended

    async def cancel(self) -> None:
        """Ask the engine to stop; what it still answers comes through the stream as usual."""
        if not self._ended:
            await self._client.tell(protocol.Cancel(id=0, target=self.id))


class EngineClient:
    """One engine process and the requests that are open on it."""

    def __init__(
        self,
        command: Sequence[str] = LOCAL_ENGINE,
        *,
        box: Box | None = None,
        environment: dict[str, str] | None = None,
        on_change: Callable[[str], None] | None = None,
        told: Callable[[str], str] = str,
    ) -> None:
        """``box``: the machine that the engine is on, where it is another one; it knows the command.
        ``on_change`` is told "starting", "ready", "lost" and "waiting" (to reach the box again).
        ``told`` puts keys or commands into a sentence in place of the ids in braces that stand for them."""
        self.command = tuple(command)
        self.box = box
        self.pause = 0.0  # seconds from one try to reach a lost box to the next; 0: none is to come
        self.welcome: protocol.Welcome | None = None
        self.starts = 0  # how often an engine came up; a new number means that models are unloaded
        self.log: deque[str] = deque(maxlen=200)  # the end of its stderr
        self.told = told
        self._environment = environment or {}
        self._on_change = on_change or (lambda state: None)
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams: dict[int, Stream] = {}
        self._next_id = 1
        self._starting = asyncio.Lock()
        self._coming_back: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------ requests
    async def request(self, message: protocol.Request) -> Stream:
        """Send a request (its ``id`` is given here), starting the engine where there is none.

        Raises:
            EngineLost: when no engine can be started.
        """
        await self.start()
        return await self._send(message)

    async def ask(self, message: protocol.Request, answer: type[Answer]) -> Answer:
        """The one event of this type that answers a request. Raises EngineProblem where none comes."""
        found: Answer | None = None
        async for event in await self.request(message):
            if isinstance(event, answer):
                found = event
        if found is None:
            raise EngineLost(f"The engine gave no answer to {type(message).__name__}.")
        return found

    async def rest(self) -> None:
        """After a lost engine, for whoever goes on asking by itself: a moment, and a box is waited for until
        it is there again, so that it is not tried more often than :data:`BACK_OFF` says."""
        await asyncio.sleep(RESTART_AFTER)
        while self.box is not None and self.welcome is None:
            await asyncio.sleep(RESTART_AFTER / 4)

    async def tell(self, message: protocol.Request) -> None:
        """Send to a running engine without waiting for an answer; a lost engine is no error here."""
        if self._process is not None:
            stream = await self._send(message)
            self._streams.pop(stream.id, None)

    async def _send(self, message: protocol.Request) -> Stream:
        message = msgspec.structs.replace(message, id=self._next_id)
        self._next_id += 1
        stream = self._streams[message.id] = Stream(self, message)
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(protocol.encode(message))
            await self._process.stdin.drain()
        except (ConnectionError, OSError):
            pass  # the reader sees the end of the process and tells every stream
        return stream

    # ------------------------------------------------------------------ process
    async def start(self) -> None:
        """Have a running engine that has said hello. Raises EngineLost."""
        async with self._starting:
            if self._process is not None and self.welcome is not None:
                return
            self._on_change("starting")
            try:
                self.log.clear()
                process = await asyncio.create_subprocess_exec(
                    *(self.box.engine() if self.box else self.command),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    env={**os.environ, "PYTHONSAFEPATH": "1", "PYTHONUTF8": "1", **self._environment},
                    start_new_session=True,  # keys and hang-ups of our terminal are not the engine's
                )
            except OSError as error:
                self._on_change("lost")
                raise EngineLost(f"Cannot start the engine ({self.command[0]}: {error.strerror}).") from None
            self._process = process
            self._spawn(self._read(process, self._spawn(self._collect_log(process))))
            try:
                async for event in await self._send(protocol.Hello(id=0)):
                    assert isinstance(event, protocol.Welcome)
                    self._check_version(event)
                    self.welcome = event
            except EngineProblem as problem:
                await self._end()
                self._on_change("lost")
                if isinstance(problem, Refused):  # it answers the hello with the versions that it knows
                    where = self.box.name if self.box else "this machine"
                    raise EngineLost(
                        f"The engine on {where} will not work with this app: {problem}.", "set-up"
                    ) from None
                raise
            self.starts += 1
            self.pause = 0.0
            self._on_change("ready")

    def _check_version(self, welcome: protocol.Welcome) -> None:
        if welcome.version != protocol.PROTOCOL_VERSION:
            raise EngineLost(
                f"The engine on {welcome.host} speaks protocol {welcome.version} and this app speaks "
                f"{protocol.PROTOCOL_VERSION}: install the same version of tfm-tui on both.",
                "set-up",
            )

    def _look_for_it(self) -> None:
        if self._coming_back is not None:
            self._coming_back.cancel()
        self._coming_back = self._spawn(self._come_back())

    async def _come_back(self) -> None:
        """Reach a lost box again, at growing intervals, until it answers or a person is needed."""
        for pause in itertools.chain(BACK_OFF, itertools.repeat(BACK_OFF[-1])):
            self.pause = pause
            self._on_change("waiting")
            await asyncio.sleep(pause)
            try:
                await self.start()
                return
            except EngineProblem as problem:
                if not isinstance(problem, EngineLost) or problem.kind != "lost":
                    break
        self.pause = 0.0
        self._on_change("lost")

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _read(self, process: asyncio.subprocess.Process, log: asyncio.Task[None]) -> None:
        """Hand every event to its stream; at the end of the output, tell all of them, once its last words
        are in the log too."""
        assert process.stdout is not None
        rest = b""
        allowance = Allowance(READING)
        while chunk := await process.stdout.read(_READ):
            began = time.monotonic()
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._deliver(line)
            await allowance.pay(time.monotonic() - began)
        await process.wait()
        await asyncio.wait((log,), timeout=LAST_WORDS)
        lost, self._streams = self._streams, {}
        greeted = self.welcome is not None
        problem = self._obituary(process.returncode, greeted=greeted)
        if self._process is process:
            self._process = self.welcome = None
            self._on_change("lost")
            if self.box is not None and greeted and problem.kind == "lost":
                self._look_for_it()
        for stream in lost.values():
            stream.put(problem)

    def _deliver(self, line: bytes) -> None:
        try:
            event = protocol.decode_event(line)
        except msgspec.DecodeError:
            if line.strip():  # a library that prints, a login banner: no event, but worth reading
                self.log.append(line[:500].decode("utf-8", "replace"))
            return
        if event.id == 0:
            self._hear(event)
        stream = self._streams.get(event.id)
        if stream is not None:
            if isinstance(event, _LAST):
                del self._streams[event.id]
            stream.put(event)

    def _hear(self, event: protocol.Event) -> None:
        """The engine speaks for itself: it knows its device now, or something is wrong with it."""
        if isinstance(event, protocol.Welcome):
            self.welcome = event
        elif isinstance(event, protocol.Error):
            self.log.append(event.message)

    async def _collect_log(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        rest = b""
        while chunk := await process.stderr.read(_READ):
            *lines, rest = (rest + chunk).split(b"\n")
            self.log.extend(line[:2000].decode("utf-8", "replace") for line in lines)
            rest = rest[-_READ:]
        if rest:
            self.log.append(rest[:2000].decode("utf-8", "replace"))

    def _obituary(self, returncode: int | None, *, greeted: bool) -> EngineLost:
        if self.box is not None:
            sentence, kind = self.box.farewell(returncode, self.log, greeted=greeted)
            return EngineLost(self.told(sentence), kind)
        if returncode is not None and returncode < 0:
            try:
                how = f"was killed by {signal.Signals(-returncode).name}"
            except ValueError:
                how = f"was killed by signal {-returncode}"
        else:
            how = f"stopped with status {returncode}"
        last = next((line.strip() for line in reversed(self.log) if line.strip()), "")
        reason = f" Its last words: {last[:200]}" if last else ""
        return EngineLost(f"The engine {how}; the next request starts it again.{reason}")

    async def close(self) -> None:
        """End the engine, and do not look for it any more."""
        if self._coming_back is not None:
            self._coming_back.cancel()
        await self._end()

    async def _end(self) -> None:
        """Close the engine's input, and kill it if it does not take the hint within a second."""
        process, self._process, self.welcome = self._process, None, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 1.0)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
