"""The processes that train one model together: who they are, and how they agree.

All of them walk through the same loop. What must be decided once (what lies in the inbox, what is on
the disk, how good the model is) the first one finds out and tells the others; what each has counted is
added up. So each takes the same decisions at the same step, and nobody waits for somebody who went
another way. These few numbers travel over gloo, whatever the gradients travel over.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePath
from typing import Any, TypeVar

import msgspec
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from tfm.core.checkpoint import CheckpointError
from tfm.train.control_inbox import Command, ControlInbox
from tfm.train.workers import RENDEZVOUS

Result = TypeVar("Result")

STEP_PATIENCE = timedelta(minutes=10)  # for the gradients of a step; who takes longer has failed
TALK_PATIENCE = timedelta(days=7)  # for the first process, which may be preparing or evaluating
ROLL_CALL = 5.0  # seconds in which those who are left say that they are
_LOST = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|timed out", re.IGNORECASE)


@dataclass(frozen=True)
class Processes:
    """This process among all that train a model. By itself (``ALONE``) it sends nothing to anybody."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # on this machine
    store: Any = None  # torch.distributed.Store: what remains to be read when a process is gone
    talk: Any = None  # the process group of everything but gradients

    @property
    def lead(self) -> bool:
        """Whether this is the one that writes the log, the samples and the checkpoints."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        return self.world_size > 1

    def first(self, work: Callable[[], Result], kind: Any) -> Result:
        """What ``work`` gives in the first process, for all; ``kind`` is its type.

        Raises:
            ValueError, CheckpointError: in all of them, if the first one did.
        """
        if not self.several:
            return work()
        said, error = b"", None
        if self.lead:
            try:
                said = msgspec.msgpack.encode(("", work()), enc_hook=_encode)
            except ValueError as raised:
                error = raised
                name = "CheckpointError" if isinstance(raised, CheckpointError) else "ValueError"
                said = msgspec.msgpack.encode((name, str(raised)))
        said = self.tell(said, int(self.sums([len(said)])[0]))
        if error is not None:
            raise error
        name, _ = msgspec.msgpack.decode(said, type=tuple[str, Any])
        if name:
            _, sentence = msgspec.msgpack.decode(said, type=tuple[str, str])
            raise (CheckpointError if name == "CheckpointError" else ValueError)(sentence)
        _, result = msgspec.msgpack.decode(said, type=tuple[str, kind], dec_hook=_decode)
        return result  # type: ignore[no-any-return]

    def sums(self, values: Sequence[float]) -> list[float]:
        """Each number, added up over all processes (in float64, the same in each of them)."""
        if not self.several:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(numbers, group=self.talk)
        return numbers.tolist()

    def of_first(self, value: float) -> float:
        """The number that the first process has."""
        return self.sums([value if self.lead else 0.0])[0]

    def tell(self, said: bytes, size: int) -> bytes:
        """The ``size`` bytes that the first process has."""
        if not self.several or not size:
            return said
        data = (
            torch.frombuffer(bytearray(said), dtype=torch.uint8)
            if self.lead
            else torch.empty(size, dtype=torch.uint8)
        )
        dist.broadcast(data, 0, group=self.talk)
        return data.numpy().tobytes()

    def each(self, mine: Tensor) -> list[Tensor]:
        """A tensor of the same shape and type from every process, by rank."""
        if not self.several:
            return [mine]
        found = [torch.empty_like(mine) for _ in range(self.world_size)]
        dist.all_gather(found, mine, group=self.talk)
        return found

    # ----------------------------------------------------------------- when one is gone
    def blame(self, error: BaseException, sentence: str) -> str:
        """Why the run ends, for a person, when ``error`` (in short: ``sentence``) ended this process.

        Every process that can still speak leaves word. An error that comes from the loss of another is
        not worth telling: it is told which one that was, and what it had to say.
        """
        if not self.several:
            return sentence
        lost = _is_loss(error)
        with suppress(Exception):  # the store may be gone with the machine that kept it
            self.store.set(f"word/{self.rank}", "" if lost else sentence)
            if lost and self.lead:
                return self._roll_call() or sentence
        return sentence

    def _roll_call(self) -> str:
        missing, deadline = set(range(1, self.world_size)), time.monotonic() + ROLL_CALL
        while missing and time.monotonic() < deadline:
            for rank in sorted(missing):
                if self.store.check([f"word/{rank}"]):
                    if word := self.store.get(f"word/{rank}").decode():
                        return f"process {rank} of {self.world_size} failed: {word}"
                    missing.remove(rank)
            time.sleep(0.05)
        if not missing:
            return ""
        who = ", ".join(map(str, sorted(missing)))
        plural = "es" if len(missing) > 1 else ""
        return f"process{plural} {who} of {self.world_size} died without a word: killed, or short of memory"


ALONE = Processes()


def _is_loss(error: BaseException) -> bool:
    """Whether an error says only that another process does not answer."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and bool(_LOST.search(str(error)))
    )


def _encode(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    raise NotImplementedError(type(value))


def _decode(kind: type, value: Any) -> Any:
    if issubclass(kind, PurePath):
        return Path(value)
    raise NotImplementedError(kind)


@contextmanager
def joined() -> Iterator[Processes]:
    """Meet the others that the environment speaks of (as torchrun sets it), until the block ends.

    Raises:
        ValueError: the environment does not say who this process is.
    """
    try:
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local_rank = int(os.environ["LOCAL_RANK"])
    except (KeyError, ValueError):
        raise ValueError(
            "RANK, WORLD_SIZE and LOCAL_RANK must be numbers in the environment; torchrun sets them"
        ) from None
    if world_size == 1:
        yield ALONE
        return
    where = os.environ.get(RENDEZVOUS, "env://")
    store, _, _ = next(iter(rendezvous(where, rank, world_size, timeout=STEP_PATIENCE)))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    dist.init_process_group(
        backend, store=PrefixStore("tfm", store), rank=rank, world_size=world_size, timeout=STEP_PATIENCE
    )
    talk = dist.new_group(backend="gloo", timeout=TALK_PATIENCE)
    yield Processes(rank, world_size, local_rank, PrefixStore("words", store), talk)
    dist.destroy_process_group()  # not after an error: it would wait for those who are gone


class SharedInbox:
    """The control inbox of a run that several processes train: the first one reads it, all obey."""

    def __init__(self, inbox: ControlInbox, processes: Processes) -> None:
        self._inbox, self._processes = inbox, processes
        self._asked = False
        self.problems: list[str] = []

    def send(self, command: str) -> None:
        """A signal that came to this process: that the run shall stop is the only thing it can say."""
        assert command == "stop"
        self._asked = True

    def take(self) -> list[Command]:
        """What was sent, the same in all processes."""
        commands: list[Command] = []
        if self._processes.lead:
            commands = self._inbox.take()
            self.problems = self._inbox.problems
        if not self._processes.several:
            return commands
        said = msgspec.msgpack.encode((commands, self.problems)) if commands or self.problems else b""
        size, asked = self._processes.sums([len(said) if self._processes.lead else 0, self._asked])
        commands, self.problems = [], []
        if size:
            said = self._processes.tell(said, int(size))
            commands, self.problems = msgspec.msgpack.decode(said, type=tuple[list[Command], list[str]])
        if asked:
            self._asked = False
            commands.append(Command("signal", "stop", {}))
        return commands
