"""Chat templates, rendered where they can do no harm.

A template is a small Jinja program that came with somebody's checkpoint. The sandbox keeps it away from
Python's insides, but not from looping for ever or asking for all memory. So it runs in a child process
with little memory; a child that does not answer in time is killed. The child is kept for the next
rendering: starting one costs 0.2 s, a rendering about a millisecond.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from jinja2 import Environment

MEBI = 1 << 20
MEMORY = 256 * MEBI  # of address space, beyond what the bare child takes
SECONDS = 5.0  # a rendering may take
MAX_OUTPUT = 8 * MEBI  # characters; no model here reads as much
MAX_SOURCE = MEBI  # characters of a template
_START = "from tfm.core.templates import _serve; _serve()"


class TemplateError(ValueError):
    """A phrase that fits behind the name of the template: what it did instead of making a prompt."""


class _Job(msgspec.Struct, frozen=True):
    source: str
    variables: dict[str, Any]


class _Reply(msgspec.Struct, frozen=True):
    text: str = ""
    problem: str = ""


# --------------------------------------------------------------------------- our side
class Renderer:
    """A child process that renders templates, started when it is first needed."""

    def __init__(self, memory: int = MEMORY, seconds: float = SECONDS) -> None:
        self._memory, self._seconds = memory, seconds
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def render(self, source: str, variables: Mapping[str, Any]) -> str:
        """The text that the template makes of JSON-able variables.

        Raises:
            TemplateError: it is no template, it refuses these variables, or it takes too much.
        """
        if len(source) > MAX_SOURCE:
            raise TemplateError(f"is longer than {MAX_SOURCE:,} characters")
        job = msgspec.json.encode(_Job(source, dict(variables))) + b"\n"
        with self._lock:
            child = self._start()
            try:
                reply = self._converse(child, job)
            except BaseException:
                self._kill()
                raise
        if reply.problem:
            raise TemplateError(reply.problem)
        return reply.text

    def close(self) -> None:
        with self._lock:
            self._kill()

    def _start(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self._kill()
            self._child = subprocess.Popen(
                [sys.executable, "-c", _START, str(self._memory), str(self._seconds)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONSAFEPATH": "1", "PYTHONUTF8": "1"},
                start_new_session=True,  # Ctrl+C in a terminal is for us to handle
            )
        return self._child

    def _converse(self, child: subprocess.Popen[bytes], job: bytes) -> _Reply:
        assert child.stdin is not None and child.stdout is not None
        patience = time.monotonic() + 2 * self._seconds + 5  # the child keeps the time that counts
        source, sink = child.stdout.fileno(), child.stdin.fileno()
        os.set_blocking(sink, False)
        received = bytearray()
        while not received.endswith(b"\n"):
            left = patience - time.monotonic()
            readable, writable, _ = select.select([source], [sink] if job else [], [], max(0.0, left))
            if not readable and not writable:
                raise TemplateError(self._too_slow())
            if writable:
                with contextlib.suppress(BrokenPipeError, BlockingIOError):
                    job = job[os.write(sink, job[:65536]) :]
            if readable:
                data = os.read(source, 1 << 20)
                if not data:
                    raise TemplateError(self._epitaph(child))
                received += data
                if len(received) > 8 * MAX_OUTPUT:
                    raise TemplateError("makes its interpreter misbehave; it is hostile")
        try:
            return msgspec.json.decode(received, type=_Reply)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise TemplateError("makes its interpreter misbehave; it is hostile") from None

    def _epitaph(self, child: subprocess.Popen[bytes]) -> str:
        """What a child died of."""
        if child.wait() == -signal.SIGALRM:
            return self._too_slow()
        return "makes its interpreter crash; it is damaged or hostile"

    def _too_slow(self) -> str:
        return f"takes longer than {self._seconds:g} s; it may loop for ever"

    def _kill(self) -> None:
        if self._child is None:
            return
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._child = None


@lru_cache(maxsize=1)
def shared_renderer() -> Renderer:
    """The process's own renderer; its child ends when our end of the pipe closes."""
    return Renderer()


# --------------------------------------------------------------------------- the child's side
def _serve() -> None:
    """Answer jobs, a line each, until the input ends."""
    memory, seconds = int(sys.argv[1]), float(sys.argv[2])
    out = os.dup(1)
    os.dup2(2, 1)
    environment = _environment()
    _limit(memory)
    compiled = lru_cache(maxsize=8)(environment.from_string)
    for line in sys.stdin.buffer:
        # An alarm that nobody handles ends the process, in the middle of C code too, and even when
        # nobody is left who waits for it.
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            job = msgspec.json.decode(line, type=_Job)
            reply = _Reply(text=_joined(compiled(job.source).generate(**job.variables)))
        except Exception as error:
            reply = _Reply(problem=_phrase(error))
        signal.setitimer(signal.ITIMER_REAL, 0)
        answer = memoryview(msgspec.json.encode(reply) + b"\n")
        while answer:
            answer = answer[os.write(out, answer) :]
    os._exit(0)


def _joined(pieces: Any) -> str:
    parts, length = [], 0
    for piece in pieces:
        parts.append(piece)
        length += len(piece)
        if length > MAX_OUTPUT:
            raise TemplateError(f"writes more than {MAX_OUTPUT:,} characters")
    return "".join(parts)


def _phrase(error: Exception) -> str:
    from jinja2 import TemplateSyntaxError

    if isinstance(error, MemoryError):
        return "needs more memory than a template may have"
    if isinstance(error, _Refused):
        return f"says: {error}"
    if isinstance(error, TemplateError):
        return str(error)
    if isinstance(error, TemplateSyntaxError):
        return f"cannot be read, line {error.lineno}: {error.message}"
    detail = (str(error).splitlines() or [""])[0][:300]
    return f"fails: {detail or type(error).__name__}"


class _Refused(Exception):
    """A template called ``raise_exception``."""


def _environment() -> Environment:
    """What templates in the wild count on: the same helpers and white space as in ``transformers``."""
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %}...{% endgeneration %}`` marks what to train on; here it is its body."""

        tags = {"generation"}

        def parse(self, parser: Any) -> list[nodes.Node]:
            next(parser.stream)
            body: list[nodes.Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return body

    def refuse(message: object) -> None:
        raise _Refused(" ".join(str(message).split())[:500])

    def to_json(value: object, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    environment.from_string(
        "{% for x in [1] %}{{ x | trim | tojson }}{% endfor %}"
    ).render()  # load what is lazy
    return environment


def _limit(memory: int) -> None:
    try:
        with open("/proc/self/statm") as file:
            memory += int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        pass
    for which, value in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # macOS knows RLIMIT_AS and refuses to set it
            resource.setrlimit(which, (value, value))
