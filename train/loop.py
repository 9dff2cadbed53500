"""The training loop: an iterator of events.

    for event in Trainer(config, run).run(): ...

Whoever iterates decides what becomes of the events (the log, a terminal, a test). The loop reads
its commands from the run's control inbox between two steps and writes checkpoints into the run
directory; it knows of no other process.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
import torch
from torch import Tensor

from tfm.core.checkpoint import Checkpoint, read_tensors
from tfm.core.model import build_model
from tfm.core.tokenizer import Tokenizer
from tfm.train.config import TrainConfig
from tfm.train.control_inbox import ControlInbox
from tfm.train.events import (
    AnyTrainEvent,
    CheckpointSaved,
    CommandDone,
    Evaluated,
    Notice,
    RunEnded,
    RunStarted,
    Samples,
    Step,
)
from tfm.train.keeping import CheckpointKeeper, mean_weights, newest_whole
from tfm.train.run_dir import RunDir
from tfm.train.schedules import learning_rate
from tfm.train.state import Progress, capture, make_optimizer, restore
from tfm.train.tasks import make_task

Reason = Literal["interval", "best", "command", "stop", "final", "average"]


@dataclass
class _Window:
    """Sums over the steps since the last Step event."""

    loss: float = 0.0
    nll: float = 0.0
    correct: int = 0
    tokens: int = 0
    grad_norm: float = 0.0
    steps: int = 0
    seconds: float = 0.0


class Trainer:
    """Trains one run from its config, or goes on from its newest checkpoint."""

    def __init__(self, config: TrainConfig, run: RunDir, resume: bool = False) -> None:
        """Reads the data and builds the model.

        Raises:
            ValueError: the data or the checkpoint cannot be used; the sentence says why.
        """
        loop = config.loop
        self.config, self.run_dir = config, run
        self.device = _device(loop.device)
        self.precision = _precision(loop.precision, self.device)
        if loop.threads:
            torch.set_num_threads(loop.threads)
        torch.manual_seed(loop.seed)
        whole, self.problems = newest_whole(run) if resume else (None, [])
        self.task = make_task(config, Tokenizer.load(whole / "tokenizer.json") if whole else None)
        self.keeper = CheckpointKeeper(run, config, self.task)
        self.model = build_model(self.task.model_config).to(self.device)
        optim = config.optim
        self.optimizer = make_optimizer(self.model, optim.betas, optim.eps, optim.weight_decay)
        self.progress = Progress()
        self.resumed_from: int | None = None
        if whole:
            self._load(read_tensors(whole / "model.safetensors"))
            self.progress = restore(whole, self.model, self.optimizer)
            self.resumed_from = self.progress.step
        self.batches = self.task.epoch(loop.seed, self.progress.epoch)
        self.inbox = ControlInbox(run)
        self.window = _Window()
        self.last_scores: Evaluated | None = None
        self.stopping = ""  # why, once somebody asked

    def request_stop(self, why: str) -> None:
        """Save and end after the step that is going on (a signal handler may call this)."""
        self.stopping = why

    def run(self) -> Iterator[AnyTrainEvent]:
        """Train until the last step, a stop or the end of patience or time."""
        yield self._started()
        yield from (Notice(level="warning", message=text) for text in (*self.problems, *self.task.notices))
        ended: RunEnded | None = None
        while ended is None:
            yield from self._obey()
            ended = self._end()
            if ended is None:
                loss_is_finite = self._step()
                if not loss_is_finite:
                    message = (
                        f"the loss is not finite at step {self.progress.step + 1}; no update was applied"
                    )
                    yield Notice(level="error", message=message)
                    ended = RunEnded(reason="failed", step=self.progress.step, message=message)
                    break
                yield from self._report()
        yield from self._finish(ended)

    # ----------------------------------------------------------------- one step
    def _step(self) -> bool:
        """One optimiser step; False (and no update) if the loss or gradient is not finite."""
        began = time.perf_counter()
        self.model.train()
        micro_batches = self._next_batches()
        losses = []
        for indices in micro_batches:
            with self._autocast():
                loss = self.task.loss(self.model, indices, self.device, self.precision)
            loss.total.backward()  # type: ignore[no-untyped-call]
            losses.append(loss)
        n_tokens = sum(loss.n_tokens for loss in losses)
        parameters = list(self.model.parameters())
        torch._foreach_div_([p.grad for p in parameters if p.grad is not None], float(n_tokens))
        grad_norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.config.optim.clip_norm or math.inf))
        total = sum(float(loss.total.detach()) for loss in losses)
        if not math.isfinite(total) or not math.isfinite(grad_norm):
            self.optimizer.zero_grad(set_to_none=True)
            return False
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(self.progress.step + 1)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - began
        window, progress = self.window, self.progress
        window.loss += total
        window.nll += sum(float(loss.nll) for loss in losses)
        window.correct += sum(int(loss.correct) for loss in losses)
        window.tokens += n_tokens
        window.grad_norm += grad_norm
        window.steps += 1
        window.seconds += seconds
        progress.step += 1
        progress.tokens += n_tokens
        progress.seconds += seconds
        return True

    def _next_batches(self) -> list[np.ndarray]:
        """The next ``accumulate`` batches; an epoch's remainder is a smaller step of its own."""
        progress = self.progress
        if progress.batch >= len(self.batches):
            progress.epoch += 1
            progress.batch = 0
            self.batches = self.task.epoch(self.config.loop.seed, progress.epoch)
        chosen = self.batches[progress.batch : progress.batch + self.config.loop.accumulate]
        progress.batch += len(chosen)
        return chosen

    def _learning_rate(self, step: int) -> float:
        if self.progress.learning_rate_override is not None and step <= self.progress.override_until:
            return self.progress.learning_rate_override
        return learning_rate(self.config.optim, step, self.config.loop.max_steps)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.precision is torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.precision)

    # ----------------------------------------------------------------- what is told
    def _started(self) -> RunStarted:
        return RunStarted(
            run=self.run_dir.id,
            objective=self.config.objective,
            n_parameters=sum(p.numel() for p in self.model.parameters()),
            total_steps=self.config.loop.max_steps,
            steps_per_epoch=-(-len(self.batches) // self.config.loop.accumulate),
            device=_device_name(self.device),
            precision="bf16" if self.precision is torch.bfloat16 else "fp32",
            resumed_from=self.resumed_from,
        )

    def _report(self) -> Iterator[AnyTrainEvent]:
        step, loop = self.progress.step, self.config.loop
        if step % loop.log_every == 0 or step == 1:
            yield self._step_event()
        if step % loop.eval_every == 0 and step < loop.max_steps:
            yield from self._evaluate()
        if step % loop.save_every == 0 and step < loop.max_steps:
            yield self._save("interval")

    def _step_event(self) -> Step:
        window, progress = self.window, self.progress
        self.window = _Window()
        return Step(
            step=progress.step,
            epoch=progress.epoch + progress.batch / len(self.batches),
            loss=window.loss / window.tokens,
            nll=window.nll / window.tokens,
            accuracy=window.correct / window.tokens,
            grad_norm=window.grad_norm / window.steps,
            learning_rate=self._learning_rate(progress.step),
            tokens=progress.tokens,
            tokens_per_second=window.tokens / window.seconds,
            seconds=progress.seconds,
        )

    def _checkpoint(self) -> Checkpoint:
        """The model as it is now, ready for inference."""
        model = self.model.eval()
        return Checkpoint(model, self.task.model_config, self.task.tokenizer, self.run_dir.path)

    def _evaluate(self) -> Iterator[AnyTrainEvent]:
        began = time.perf_counter()
        rng = torch.get_rng_state()
        scores = self.task.evaluate(self._checkpoint(), self.progress.step)
        value = _value(scores, self.config.loop.best_by)
        progress = self.progress
        best = progress.best_value is None or value > progress.best_value
        if best:
            progress.best_value, progress.best_step = value, progress.step
        progress.evaluations_since_best = 0 if best else progress.evaluations_since_best + 1
        self.last_scores = msgspec.structs.replace(scores, best=best, seconds=time.perf_counter() - began)
        yield self.last_scores
        yield Samples(step=progress.step, samples=self.task.samples(self._checkpoint()))
        torch.set_rng_state(rng)
        if best:
            yield self._save("best")

    # ----------------------------------------------------------------- checkpoints
    def _save(self, reason: Reason) -> CheckpointSaved:
        state = capture(self.model, self.optimizer)
        folder = self.keeper.save(self.model, state, self.progress, self.last_scores)
        if reason == "best":
            self.keeper.pin_best(self.progress)
        return CheckpointSaved(step=self.progress.step, path=folder.name, reason=reason)

    def _average(self) -> Iterator[AnyTrainEvent]:
        """Score and keep the mean of the last checkpoints; the model holds it from here on."""
        folders = self.keeper.last(self.config.loop.average_last) if self.config.loop.average_last > 1 else []
        if len(folders) < 2:
            return
        self._load(mean_weights(folders))
        self.last_scores = self.task.evaluate(self._checkpoint(), self.progress.step)
        yield self.last_scores
        folder = self.keeper.save_average(self.model, folders, self.progress, self.last_scores)
        yield CheckpointSaved(step=self.progress.step, path=folder.name, reason="average")

    def _load(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(weights[name])

    # ----------------------------------------------------------------- commands and the end
    def _obey(self) -> Iterator[AnyTrainEvent]:
        """Carry out what lies in the inbox; a pause waits here."""
        paused = False
        while True:
            for command in self.inbox.take():
                done = CommandDone(
                    command_id=command.id, command=command.command, args=command.args, step=self.progress.step
                )
                if command.command == "pause":
                    paused = True
                elif command.command == "resume":
                    paused = False
                elif command.command == "stop":
                    self.request_stop("asked to")
                elif command.command == "save":
                    yield self._save("command")
                elif command.command == "evaluate":
                    yield from self._evaluate()
                elif command.command == "learning_rate":
                    done = self._override_learning_rate(done)
                else:
                    done = msgspec.structs.replace(
                        done, ok=False, message="this trainer does not know the command"
                    )
                yield done
            for problem in self.inbox.problems:
                yield Notice(level="warning", message=problem)
            if not paused or self.stopping:
                return
            time.sleep(0.1)

    def _override_learning_rate(self, done: CommandDone) -> CommandDone:
        value, steps = done.args.get("value"), done.args.get("steps", self.config.loop.max_steps)
        if not isinstance(value, int | float) or not 0.0 <= value <= 1.0 or not isinstance(steps, int):
            return msgspec.structs.replace(
                done, ok=False, message="value must be a number in [0, 1], steps a whole one"
            )
        self.progress.learning_rate_override = float(value)
        self.progress.override_until = self.progress.step + steps
        return done

    def _end(self) -> RunEnded | None:
        step, loop, progress = self.progress.step, self.config.loop, self.progress
        if self.stopping:
            return RunEnded(reason="stopped", step=step, message=self.stopping)
        if step >= loop.max_steps:
            return RunEnded(reason="finished", step=step)
        if loop.max_minutes and progress.seconds >= loop.max_minutes * 60:
            return RunEnded(reason="time", step=step, message=f"{loop.max_minutes:g} minutes are over")
        if loop.patience and progress.evaluations_since_best >= loop.patience:
            message = f"no better {loop.best_by} in {loop.patience} evaluations"
            return RunEnded(reason="early", step=step, message=message)
        return None

    def _finish(self, ended: RunEnded) -> Iterator[AnyTrainEvent]:
        if self.window.steps:
            yield self._step_event()
        if ended.reason == "stopped":
            yield self._save("stop")
        elif ended.reason != "failed":
            yield from self._evaluate()
            yield self._save("final")
            yield from self._average()
        yield ended


def _value(scores: Evaluated, by: Literal["loss", "bleu", "accuracy"]) -> float:
    """Larger is better."""
    if by == "bleu" and scores.bleu is not None:
        return scores.bleu
    return scores.accuracy if by == "accuracy" else -scores.loss


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        raise ValueError(
            f'loop.device = {name!r} is no device of this machine; use "auto" or "cpu"'
        ) from None
    return device


def _device_name(device: torch.device) -> str:
    return (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"cpu, {torch.get_num_threads()} threads"
    )


def _precision(name: str, device: torch.device) -> torch.dtype:
    """``auto``: bfloat16 where the hardware multiplies matrices in it, else float32."""
    if name == "auto":
        fast = device.type == "cuda" or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if name == "bf16" else torch.float32
