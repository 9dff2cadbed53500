"""The engine: reads requests from one pipe, serves several at once, writes events to another.

Threads, and what each may touch:

- *reader* (daemon): decodes lines; answers ``hello``, ``cancel`` and ``tune`` on the spot; hands all
  else on. It never waits for anything but the pipe.
- *main*: the only thread that computes. Running requests take turns here, a step each.
- *loader* (daemon): loads the models that waiting requests need, one after the other.
- *warm-up* (daemon): imports torch, so that ``hello`` need not wait for it.
- a daemon thread for each request that only looks things up or follows a run (``services``).

Whoever reads the events may be slow: writing blocks the computing, never the reading.
"""

from __future__ import annotations

import importlib.metadata
import os
import queue
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn

import msgspec

from tfm.core.catalog import find_checkpoint, list_models
from tfm.core.engine import protocol
from tfm.core.engine.box import box_stats
from tfm.core.engine.errors import explain
from tfm.core.engine.fetch import import_model, pull_model
from tfm.core.engine.jobs import Job, Turns
from tfm.core.engine.protocol import Done, Error, Event, Request, Welcome
from tfm.core.engine.shelf import delete_model, model_card, verify_model
from tfm.core.engine.steps import NotWanted, Teller
from tfm.core.engine.wire import LineTooLong, Outbox, read_lines

if TYPE_CHECKING:  # torch stays out until the warm-up
    from tfm.core.engine.sessions import LoadedModel, ModelStore

Handler = Callable[[Request, Callable[[Event], None], Callable[[], bool]], None]
"""A service from outside: ``handler(request, emit, cancelled)``, called in a thread of its own.

It emits what it has to say and returns, soon after ``cancelled()`` turns true; the engine closes the
request. A ValueError it raises becomes an ``error`` with that sentence."""
Services = Mapping[type[Request], Handler]

PATIENCE = 3.0  # seconds that a step may still take after the end of input


def serve(stdin: BinaryIO, stdout: BinaryIO, services: Services | None = None) -> None:
    """Serve until ``shutdown``, the end of ``stdin`` or the loss of ``stdout``."""
    Engine(stdout, services or {}).serve(stdin)


def main(services: Services | None = None) -> NoReturn:
    """Serve on this process's own stdin and stdout, then exit: with status 0, or 130 after Ctrl+C.

    Both descriptors are taken away first: whatever a library prints goes to stderr, and no child
    process inherits the pipes.
    """
    stdin, stdout = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    engine = Engine(stdout, services or {})
    threading.Thread(target=_watch, args=(engine.closing,), daemon=True).start()
    status = 0
    try:
        engine.serve(stdin)
    except KeyboardInterrupt:
        status = 130
    sys.stdout.flush()  # where libraries printed; it leads to stderr
    sys.stderr.flush()
    os._exit(status)  # daemon threads inside torch would crash while the interpreter is taken down


def _watch(closing: threading.Event) -> None:
    """A step or a write that does not come to its end must not keep the process alive."""
    closing.wait()
    time.sleep(PATIENCE)
    os._exit(0)


class Engine:
    """The requests that are being served, and the threads that serve them."""

    def __init__(self, stdout: BinaryIO, services: Services) -> None:
        self.closing = threading.Event()
        self._outbox = Outbox(stdout, on_broken=self.close)
        self._services: dict[type[Request], Handler] = {
            **LOOKUPS,
            protocol.ModelsList: self._list_models,
            protocol.ModelsDelete: self._delete_model,
            protocol.ModelUnload: self._unload_model,
            **services,
        }
        self._jobs: dict[int, Job] = {}
        self._turns = Turns()
        self._to_load: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._warm = threading.Event()
        self._greeted = False
        self._store: ModelStore | None = None

    def serve(self, stdin: BinaryIO) -> None:
        for work in (lambda: self._read(stdin), self._load_models, self._warm_up):
            threading.Thread(target=work, daemon=True).start()
        try:
            self._turns.run()
        finally:
            self.close()

    def close(self) -> None:
        """Let the main thread return after the step that is going on."""
        self.closing.set()
        self._turns.close()
        for job in list(self._jobs.values()):
            job.cancel()

    # ----------------------------------------------------------------- reader
    def _read(self, stdin: BinaryIO) -> None:
        try:
            for line in read_lines(stdin):
                if isinstance(line, LineTooLong):
                    self._outbox.send([Error(id=0, kind="bad_request", message=str(line))])
                else:
                    self._accept(line)
                if self.closing.is_set():
                    break
        except (OSError, ValueError):  # the pipe was torn down: as good as its end
            pass
        self.close()

    def _accept(self, line: bytes) -> None:
        try:
            request = protocol.decode_request(line)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            message = f"not a request this engine knows: {error}"
            self._outbox.send([Error(id=_id_of(line), kind="bad_request", message=message)])
            return
        if isinstance(request, protocol.Hello):
            self._outbox.send([self._greeting(request)])
        elif isinstance(request, protocol.Cancel | protocol.Tune):
            self._outbox.send([self._adjust(request)])
        elif isinstance(request, protocol.Shutdown):
            self._outbox.send([Done(id=request.id)])
            self.close()
        elif request.id in self._jobs:
            message = f"request {request.id} is still being served: give each request an id of its own"
            self._outbox.send([Error(id=0, kind="bad_request", message=message)])
        else:
            self._begin(Job(request))

    def _greeting(self, request: protocol.Hello) -> Event:
        if request.version != protocol.PROTOCOL_VERSION:
            message = (
                f"the app speaks protocol {request.version} and this engine (tfm-tui {app_version()}) "
                f"speaks {protocol.PROTOCOL_VERSION}: install the same tfm-tui on both sides"
            )
            return Error(id=request.id, kind="unsupported", message=message)
        self._greeted = True
        return self._welcome(request.id)

    def _welcome(self, request_id: int) -> Welcome:
        store = self._store
        return Welcome(
            id=request_id,
            version=protocol.PROTOCOL_VERSION,
            app_version=app_version(),
            device=store.device_name if store else "",
            host=socket.gethostname(),
            pid=os.getpid(),
            threads=store.threads if store else os.cpu_count() or 1,
        )

    def _adjust(self, request: protocol.Cancel | protocol.Tune) -> Event:
        job = self._jobs.get(request.target)
        if isinstance(request, protocol.Tune):
            try:
                request.settings.check()
                if job is not None:
                    _check_lane(request.lane, job.request)
                    job.tune(request.lane, request.settings)
            except ValueError as error:
                return Error(id=request.id, kind="bad_request", message=str(error))
        elif job is not None and job.cancel():
            self._finish(job, Done(id=job.request.id, detail={"cancelled": True}))
        return Done(id=request.id, detail={"found": job is not None})

    def _begin(self, job: Job) -> None:
        """Hand a request to the thread that serves it."""
        request = job.request
        self._jobs[request.id] = job
        handler = self._services.get(type(request))
        if handler is not None:
            job.start()
            threading.Thread(target=self._attend_to, args=(job, handler), daemon=True).start()
        elif not isinstance(request, protocol.OfModel):
            self._fail(job, NotImplementedError(f"this engine was started without {type(request).__name__}"))
        elif self._store is not None and (model := self._store.find(request.model, _precision(request))):
            self._compute(job, model)
        else:
            self._to_load.put(job)

    # ----------------------------------------------------------------- services and look-ups
    def _attend_to(self, job: Job, handler: Handler) -> None:
        def emit(event: Event) -> None:
            if isinstance(event, Done | Error):
                self._finish(job, event)
            elif not job.closed():
                self._outbox.send([event])

        try:
            handler(job.request, emit, job.cancelled)
        except Exception as error:
            self._fail(job, error)
        else:
            detail = {"cancelled": True} if job.cancelled() else {}
            self._finish(job, Done(id=job.request.id, seconds=job.seconds(), detail=detail))

    def _list_models(
        self, request: Request, emit: Callable[[Event], None], _cancelled: Callable[[], bool]
    ) -> None:
        models, store = tuple(list_models()), self._store
        if store is None:
            emit(protocol.ModelsListed(id=request.id, models=models))
        else:
            held, budget = store.held(), store.budget_bytes
            emit(protocol.ModelsListed(id=request.id, models=models, held=held, budget_bytes=budget))

    def _delete_model(
        self, request: Request, _emit: Callable[[Event], None], _cancelled: Callable[[], bool]
    ) -> None:
        delete_model(request, self._unload)

    def _unload_model(
        self, request: Request, emit: Callable[[Event], None], _cancelled: Callable[[], bool]
    ) -> None:
        assert isinstance(request, protocol.ModelUnload)
        freed = self._unload(find_checkpoint(request.model))
        emit(Done(id=request.id, detail={"freed": freed}))

    def _unload(self, path: Path) -> int:
        return self._store.unload(path) if self._store is not None else 0

    # ----------------------------------------------------------------- warm-up and loader
    def _warm_up(self) -> None:
        try:
            from tfm.core.engine import operations  # noqa: F401  so that the first request finds it
            from tfm.core.engine.sessions import ModelStore

            self._store = ModelStore()
            if self._greeted:
                self._outbox.send([self._welcome(0)])
        except Exception as error:
            traceback.print_exc()
            self._outbox.send([Error(id=0, kind="internal", message=f"torch cannot be loaded: {error}")])
        finally:
            self._warm.set()

    def _load_models(self) -> None:
        while True:
            job = self._to_load.get()
            self._warm.wait()
            try:
                self._load_for(job)
            except NotWanted:  # cancelled, and closed by whoever cancelled it
                pass
            except BaseException as error:  # a broken tokenizer file panics past Exception
                self._fail(job, error)

    def _load_for(self, job: Job) -> None:
        """Have the model that a request names, then let the request take turns."""
        request = job.request
        assert isinstance(request, protocol.OfModel)
        if self._store is None:
            raise RuntimeError("torch cannot be loaded here; the engine's log says why")
        if job.closed():
            return

        def emit(event: Event) -> None:
            if isinstance(request, protocol.ModelLoad) and not job.closed():
                self._outbox.send([event])

        teller = Teller(request.id, emit, job.closed)

        def progress(fraction: float, stage: str) -> None:
            teller.tell(stage, round(fraction * 10_000), 10_000)

        model = self._store.load(request.model, _precision(request), progress)
        if job.closed():  # cancelled while it was being read
            self._store.release(model)
            self._store.drop(model)
        else:
            self._compute(job, model)

    # ----------------------------------------------------------------- main thread
    def _compute(self, job: Job, model: LoadedModel) -> None:
        """Let a request take turns with the others, holding on to its model."""
        from tfm.core.engine import operations

        assert self._store is not None
        store = self._store
        steps: operations.Steps | None = None

        def turn() -> bool:
            nonlocal steps
            if steps is None and not job.start():  # cancelled before its first turn, and closed
                store.release(model)
                return False
            try:
                steps = steps or operations.begin(job, model)
                events = operations.step(steps)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                store.release(model)
                self._fail(job, error)
                return False
            if isinstance(events, Done):
                store.release(model)
                self._finish(job, events)
                return False
            self._outbox.send(events)
            return True

        self._turns.add(turn)

    # ----------------------------------------------------------------- the end of a request
    def _finish(self, job: Job, last: Event) -> None:
        if job.close():
            self._jobs.pop(job.request.id, None)  # first, so that the id is free when the client reads this
            self._outbox.send([last])

    def _fail(self, job: Job, error: BaseException) -> None:
        kind, message = explain(error)
        if kind == "internal":
            traceback.print_exception(error)
        if kind == "out_of_memory" and self._store is not None:
            self._store.forget_prefixes()
        self._finish(job, Error(id=job.request.id, kind=kind, message=message))


def app_version() -> str:
    try:
        return importlib.metadata.version("tfm-tui")
    except importlib.metadata.PackageNotFoundError:  # run from a tree that is not installed
        return "unknown"


class _WithId(msgspec.Struct):
    id: int


def _check_lane(lane: int | None, target: Request) -> None:
    if not isinstance(target, protocol.Generate | protocol.Resample):
        raise ValueError(f"request {target.id} has no knobs: only generate and resample can be tuned")
    n_lanes = len(target.lanes) if isinstance(target, protocol.Generate) else 1
    if lane is not None and not 0 <= lane < n_lanes:
        raise ValueError(f"request {target.id} has no lane {lane}: its lanes are 0 to {n_lanes - 1}")


def _precision(request: protocol.OfModel) -> protocol.Precision | None:
    """None: any that is loaded will do."""
    return request.precision if isinstance(request, protocol.ModelLoad) else None


def _id_of(line: bytes) -> int:
    """The id of a line that is no valid request, or 0."""
    try:
        return msgspec.json.decode(line, type=_WithId).id
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return 0


def _box_stats(request: Request, emit: Callable[[Event], None], _cancelled: Callable[[], bool]) -> None:
    emit(box_stats(request.id))


LOOKUPS: Services = {
    protocol.ModelsPull: pull_model,
    protocol.ModelsImport: import_model,
    protocol.ModelsCard: model_card,
    protocol.ModelsVerify: verify_model,
    protocol.BoxStats: _box_stats,
}
