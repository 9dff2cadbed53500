"""What a training run tells the world: one frozen record a line of ``events.jsonl``. No torch.

The trainer yields these records; printing, the event log, the panel and the tests are
interchangeable readers of them.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

COMMANDS = ("pause", "resume", "save", "stop", "learning_rate", "evaluate", "bookmark", "rollback", "prompts")

EndReason = Literal["finished", "stopped", "early", "time", "failed"]
Stage = Literal["reading", "tokenizer", "tokens"]  # checking the files, training a tokenizer, tokenising


class TrainEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    seq: int = -1  # given by the event log
    time: float = 0.0  # seconds since the epoch, given by the event log


class Preparing(TrainEvent, frozen=True, kw_only=True, tag="preparing"):
    """The corpus is being made ready; told before the start of a run, every few seconds that it takes."""

    stage: Stage
    done: int  # bytes of the corpus's files
    total: int


class RunStarted(TrainEvent, frozen=True, kw_only=True, tag="started"):
    run: str
    objective: str
    n_parameters: int
    total_steps: int
    steps_per_epoch: int
    device: str
    precision: str
    resumed_from: int | None = None
    processes: int = 1  # that train together


class Step(TrainEvent, frozen=True, kw_only=True, tag="step"):
    """Means over the optimiser steps since the last such event."""

    step: int
    epoch: float  # fractional
    loss: float  # nats a target token, label smoothing included
    nll: float  # nats a target token
    accuracy: float  # share of target tokens predicted right
    grad_norm: float
    learning_rate: float
    tokens: int  # real target tokens so far, padding not counted
    tokens_per_second: float
    seconds: float  # training time so far, over all resumes


class Evaluated(TrainEvent, frozen=True, kw_only=True, tag="eval"):
    step: int
    loss: float
    perplexity: float
    accuracy: float
    bleu: float | None = None
    chrf: float | None = None
    cer: float | None = None  # character edits per character of the references
    wer: float | None = None  # word edits per word
    best: bool = False
    seconds: float = 0.0


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    source: str
    reference: str
    output: str


class Samples(TrainEvent, frozen=True, kw_only=True, tag="samples"):
    step: int
    samples: tuple[Sample, ...]


class CheckpointSaved(TrainEvent, frozen=True, kw_only=True, tag="checkpoint"):
    step: int
    path: str  # relative to the run directory
    reason: Literal["interval", "best", "command", "stop", "final", "average"]


class CommandDone(TrainEvent, frozen=True, kw_only=True, tag="command"):
    """The acknowledgement of a file of the control inbox."""

    command_id: str
    command: str
    args: dict[str, Any] = {}
    ok: bool = True
    message: str = ""
    step: int = 0


class RolledBack(TrainEvent, frozen=True, kw_only=True, tag="rollback"):
    """The run stands where it stood before: what was told of later steps is undone."""

    step: int  # where it stands now
    from_step: int
    path: str  # the checkpoint it went back to, relative to the run directory; "" is the beginning
    message: str  # why


class Notice(TrainEvent, frozen=True, kw_only=True, tag="notice"):
    level: Literal["info", "warning", "error"]
    message: str


class RunEnded(TrainEvent, frozen=True, kw_only=True, tag="ended"):
    reason: EndReason
    step: int
    message: str = ""


AnyTrainEvent = (
    Preparing | RunStarted | Step | Evaluated | Samples | CheckpointSaved | CommandDone | RolledBack | Notice
    | RunEnded
)  # fmt: skip
_decoder = msgspec.json.Decoder(AnyTrainEvent)


def decode(line: bytes | str) -> AnyTrainEvent:
    """Raises msgspec.DecodeError on a line that is no event."""
    event: AnyTrainEvent = _decoder.decode(line)
    return event


def encode(event: TrainEvent) -> bytes:
    """One line, newline included."""
    return msgspec.json.encode(event) + b"\n"
