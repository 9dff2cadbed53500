"""The training loop: an iterator of events.

    for event in Trainer(config, run).run(): ...

Whoever iterates decides what becomes of the events (the log, a terminal, a test). The loop reads
its commands from the run's control inbox between two steps and writes checkpoints into the run
directory; it knows of no other process.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import torch

from tfm.core.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from tfm.core.model import Model, build_model
from tfm.train import guard
from tfm.train.batching import BatchOrder, Place
from tfm.train.beginning import base_of, differences, find_initial
from tfm.train.config import TrainConfig
from tfm.train.control_inbox import ControlInbox
from tfm.train.ema import WeightAverage
from tfm.train.events import (
    AnyTrainEvent,
    CheckpointSaved,
    Evaluated,
    Notice,
    RolledBack,
    RunEnded,
    RunStarted,
    Samples,
    Step,
)
from tfm.train.execution import (
    autocast,
    compile_layers,
    device_name,
    find_device,
    find_precision,
    recompute_activations,
    untouched_randomness,
)
from tfm.train.keeping import CheckpointKeeper, mean_weights, newest_whole
from tfm.train.objectives import Loss
from tfm.train.run_dir import RunDir
from tfm.train.schedules import learning_rate
from tfm.train.state import Progress, Window, capture, load_weights, make_optimizer, restore
from tfm.train.steering import obey, obey_early
from tfm.train.tasks import Task, make_task
from tfm.train.tasks.scores import quality

Reason = Literal["interval", "best", "command", "stop", "final", "average"]


class Trainer:
    """Trains one run from its config, or goes on from its newest checkpoint."""

    task: Task
    model: Model
    keeper: CheckpointKeeper
    order: BatchOrder

    def __init__(self, config: TrainConfig, run: RunDir, resume: bool = False) -> None:
        """What takes time happens in :meth:`run`.

        Raises:
            ValueError: the machine cannot do what the config asks for.
        """
        self.config, self.run_dir = config, run
        self.device = find_device(config.loop.device)
        self.precision = find_precision(config.loop.precision, self.device)
        if config.loop.threads:
            torch.set_num_threads(config.loop.threads)
        self.inbox = ControlInbox(run)
        self.progress = Progress()
        self.last_scores: Evaluated | None = None
        self.stopping = ""  # why, once somebody asked
        self._resume = resume

    def request_stop(self, why: str) -> None:
        """Save and end after the step that is going on (a signal handler may call this)."""
        self.stopping = why

    def run(self) -> Iterator[AnyTrainEvent]:
        """Prepare, then train until the last step, a stop, or the end of patience or time.

        Raises:
            ValueError: the data or a checkpoint cannot be used; the sentence says why.
        """
        yield from self._set_up()
        if self.stopping:
            yield RunEnded(reason="stopped", step=self.progress.step, message=self.stopping)
            return
        ended: RunEnded | None = None
        while ended is None:
            yield from obey(self, self.inbox)
            ended = self._end()
            if ended is None:
                trouble, places = self._step()
                if trouble:
                    ended = yield from self._recover(trouble, places)
                else:
                    yield from self._report()
        yield from self._finish(ended)

    # ----------------------------------------------------------------- before the first step
    def _set_up(self) -> Iterator[AnyTrainEvent]:
        """Make or find everything that a step needs, and say where the run begins."""
        loop, optim = self.config.loop, self.config.optim
        whole, problems = newest_whole(self.run_dir) if self._resume else (None, [])
        start = load_checkpoint(whole or find_initial(loop.init_from)) if whole or loop.init_from else None
        base = base_of(start, self.config, resumed=whole is not None) if start else None
        making = make_task(self.config, base)
        while True:
            try:
                yield next(making)
            except StopIteration as done:
                self.task, corpus = done.value
                break
            yield from obey_early(self, self.inbox)
            if self.stopping:
                making.close()
                return
        self.keeper = CheckpointKeeper(self.run_dir, self.config, self.task)
        batch_tokens = loop.batch_tokens // loop.accumulate
        self.order = BatchOrder(
            lambda epoch: self.task.epoch(batch_tokens, loop.seed, epoch), loop.accumulate
        )
        torch.manual_seed(loop.seed)
        self.model = build_model(self.task.model_config).to(self.device)
        if start:
            load_weights(self.model, dict(start.model.named_parameters()))
        self.average = WeightAverage(self.model, optim.ema) if optim.ema else None
        self.optimizer = make_optimizer(self.model, optim.betas, optim.eps, optim.weight_decay)
        if whole:
            self.progress = restore(whole, self.model, self.optimizer, self.average)
            self.keeper.settle_best(self.progress)
        if self.progress.corpus not in ("", corpus):
            problems.append("the corpus is not the one that this run began with; its batches are others now")
        self.progress.corpus = corpus
        if loop.compile and (problem := compile_layers(self.model, self._try_a_pass)):
            problems.append(f"the layers are not compiled: {problem}")
        if loop.gradient_checkpointing:
            recompute_activations(self.model)
        if start and not whole and (fields := differences(self.config, self.task.model_config)):
            problems.append(f"the architecture is that of {start.path.name}; not what [model] says: {fields}")
        yield self._started(self.progress.step if whole else None)
        yield from (Notice(level="warning", message=text) for text in (*problems, *self.task.notices))

    # ----------------------------------------------------------------- one step
    def _step(self) -> tuple[str, list[Place]]:
        """One optimiser step. Returns why its update was not applied ("": it was), and its batches."""
        began = time.perf_counter()
        self.model.train()
        progress, window = self.progress, self.progress.window
        places, after = self.order.step((progress.epoch, progress.batch), progress.guard.left_out)
        losses = [self._forward_backward(indices) for indices in self.order.share(places)]
        n_tokens = sum(loss.n_tokens for loss in losses)
        parameters = list(self.model.parameters())
        torch._foreach_div_([p.grad for p in parameters if p.grad is not None], float(n_tokens))
        grad_norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.config.optim.clip_norm or math.inf))
        total = sum(float(loss.total.detach() - loss.penalty) for loss in losses)
        trouble = guard.refusal(self.config.guard, progress.guard, total / n_tokens, grad_norm)
        if trouble:
            self.optimizer.zero_grad(set_to_none=True)
            return trouble, places
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(progress.step + 1)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - began
        window.loss += total
        window.nll += sum(float(loss.nll) for loss in losses)
        window.correct += sum(float(loss.correct) for loss in losses)
        window.tokens += n_tokens
        window.grad_norm += grad_norm
        window.steps += 1
        window.seconds += seconds
        progress.step += 1
        if self.average is not None:
            self.average.update(progress.step)
        progress.epoch, progress.batch = after
        progress.tokens += n_tokens
        progress.seconds += seconds
        guard.applied(self.config.guard, progress.guard, total / n_tokens, progress.step)
        return "", places

    def _forward_backward(self, indices: np.ndarray) -> Loss:
        """One pass over one batch; gradients of the summed loss are added to those that are there."""
        with autocast(self.device, self.precision):
            loss = self.task.loss(self.model, indices, self._r_drop(), self.device, self.precision)
        loss.total.backward()  # type: ignore[no-untyped-call]
        return loss

    def _try_a_pass(self) -> None:
        """A pass over the first batch that leaves nothing behind."""
        with untouched_randomness(self.device):
            self._forward_backward(self.order.epoch(self.progress.epoch)[0])
        self.optimizer.zero_grad(set_to_none=True)

    def _r_drop(self) -> float:
        optim = self.config.optim
        return optim.r_drop if self.progress.step >= optim.r_drop_after else 0.0

    def _learning_rate(self, step: int) -> float:
        progress, optim = self.progress, self.config.optim
        factor = progress.guard.rate_factor if step <= progress.guard.lowered_until else 1.0
        if progress.learning_rate_override is not None and step <= progress.override_until:
            return factor * progress.learning_rate_override
        return factor * learning_rate(optim, step, self.config.loop.max_steps)

    # ----------------------------------------------------------------- going back
    def _recover(
        self, trouble: str, offending: list[Place]
    ) -> Generator[AnyTrainEvent, None, RunEnded | None]:
        """Go back to a good point and change what led here; after too many times, end the run."""
        step, state = self.progress.step + 1, self.progress.guard
        message = f"{trouble} at step {step:,}; no update was applied"
        guard.refused(state, step)
        if state.in_a_row > self.config.guard.attempts:
            tries = f", after {self.config.guard.attempts} attempts" if self.config.guard.attempts else ""
            message = f"{message}{tries}; the checkpoints are as they were"
            yield Notice(level="error", message=message)
            return RunEnded(reason="failed", step=self.progress.step, message=message)
        yield Notice(level="warning", message=message)
        yield from self.go_back(self.keeper.good_point(state.in_a_row), message)
        step, config = self.progress.step, self.config.guard
        self.progress.guard = guard.retry(config, state, self.progress.guard, step, offending)
        changes = guard.what_is_changed(config, self.progress.guard, step, len(offending))
        yield Notice(level="warning", message=changes)
        return None

    def go_back(self, folder: Path | None, why: str) -> Iterator[AnyTrainEvent]:
        """Be what a checkpoint holds (None: the beginning), but for the time spent and the prompts.

        Raises:
            CheckpointError: it cannot be resumed from; nothing is changed then.
        """
        before = self.progress
        if folder is None:
            self._begin()
        else:
            self.progress = restore(folder, self.model, self.optimizer, self.average)
        self.progress.seconds, self.progress.prompts = before.seconds, before.prompts
        self.progress.window = Window()
        self.last_scores = None
        self.keeper.rewind(folder, self.progress)
        path = "" if folder is None else folder.name
        yield RolledBack(step=self.progress.step, from_step=before.step, path=path, message=why)

    def _begin(self) -> None:
        """Be what a new run is."""
        init_from = self.config.loop.init_from
        torch.manual_seed(self.config.loop.seed)
        fresh = build_model(self.task.model_config)
        start = load_checkpoint(find_initial(init_from)).model if init_from else fresh
        load_weights(self.model, dict(start.named_parameters()))
        if self.average is not None:
            self.average.load(dict(self.model.named_parameters()))
        self.optimizer.state.clear()
        self.progress = Progress(corpus=self.progress.corpus)

    # ----------------------------------------------------------------- what is told
    def _started(self, resumed_from: int | None) -> RunStarted:
        return RunStarted(
            run=self.run_dir.id,
            objective=self.config.objective,
            n_parameters=sum(p.numel() for p in self.model.parameters()),
            total_steps=self.config.loop.max_steps,
            steps_per_epoch=-(-len(self.order.epoch(self.progress.epoch)) // self.config.loop.accumulate),
            device=device_name(self.device),
            precision="bf16" if self.precision is torch.bfloat16 else "fp32",
            resumed_from=resumed_from,
        )

    def _report(self) -> Iterator[AnyTrainEvent]:
        step, loop = self.progress.step, self.config.loop
        if step % loop.log_every == 0 or step == 1:
            yield self._step_event()
        if step % loop.eval_every == 0 and step < loop.max_steps:
            yield from self.evaluate()
        if step % loop.save_every == 0 and step < loop.max_steps:
            yield self._try_to_save("interval")

    def _step_event(self) -> Step:
        window, progress = self.progress.window, self.progress
        progress.window = Window()
        return Step(
            step=progress.step,
            epoch=progress.epoch + progress.batch / len(self.order.epoch(progress.epoch)),
            loss=window.loss / window.tokens,
            nll=window.nll / window.tokens,
            accuracy=window.correct / window.tokens,
            grad_norm=window.grad_norm / window.steps,
            learning_rate=self._learning_rate(progress.step),
            tokens=progress.tokens,
            tokens_per_second=window.tokens / window.seconds,
            seconds=progress.seconds,
        )

    @contextmanager
    def _inference(self) -> Iterator[Checkpoint]:
        """What has been learnt so far, ready to be used; training goes on as if nothing had happened."""
        averaged = nullcontext() if self.average is None else self.average.in_place()
        with untouched_randomness(self.device), averaged:
            model = self.model.eval()
            yield Checkpoint(model, self.task.model_config, self.task.tokenizer, self.run_dir.path)

    def evaluate(self) -> Iterator[AnyTrainEvent]:
        """Scores and samples; a checkpoint where they are the best so far."""
        began = time.perf_counter()
        with self._inference() as checkpoint:
            scores = self.task.evaluate(checkpoint, self.progress.step)
        value = quality(scores, self.config.loop.best_by)
        progress = self.progress
        best = progress.best_value is None or value > progress.best_value
        if best:
            progress.best_value, progress.best_step = value, progress.step
        progress.evaluations_since_best = 0 if best else progress.evaluations_since_best + 1
        self.last_scores = msgspec.structs.replace(scores, best=best, seconds=time.perf_counter() - began)
        yield self.last_scores
        yield self.samples()
        if best:
            yield self._try_to_save("best")

    def samples(self) -> Samples:
        """What the model makes of the fixed prompts now."""
        with self._inference() as checkpoint:
            prompts = self.progress.prompts or self.task.prompts
            return Samples(step=self.progress.step, samples=self.task.samples(checkpoint, prompts))

    # ----------------------------------------------------------------- checkpoints
    def save(self, reason: Reason) -> CheckpointSaved:
        """Commit the state as it is now."""
        weights = self.model if self.average is None else self.average.weights()
        state = capture(self.model, self.optimizer, self.average)
        folder = self.keeper.save(weights, state, self.progress, self.last_scores)
        if reason == "best":
            self.keeper.pin_best(self.progress)
        return CheckpointSaved(step=self.progress.step, path=folder.name, reason=reason)

    def _try_to_save(self, reason: Reason) -> CheckpointSaved | Notice:
        """A disk that is full now may not be at the next checkpoint: no reason to stop training."""
        try:
            return self.save(reason)
        except CheckpointError as error:
            return Notice(level="error", message=f"no checkpoint at step {self.progress.step:,}: {error}")

    def _final_weights(self) -> Iterator[AnyTrainEvent]:
        """Keep the moving average, or score and keep the mean of the last checkpoints."""
        count = self.config.loop.average_last
        if self.average is not None:
            averaged: str | list[str] = f"moving average, decay {self.config.optim.ema:g}"
            load_weights(self.model, self.average.weights())
        else:
            folders = self.keeper.last(count) if count > 1 else []
            if len(folders) < 2:
                return
            averaged = [folder.name for folder in folders]
            load_weights(self.model, mean_weights(folders))
            with self._inference() as checkpoint:
                self.last_scores = self.task.evaluate(checkpoint, self.progress.step)
            yield self.last_scores
        folder = self.keeper.save_average(self.model, averaged, self.progress, self.last_scores)
        yield CheckpointSaved(step=self.progress.step, path=folder.name, reason="average")

    # ----------------------------------------------------------------- the end
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
        if self.progress.window.steps:
            yield self._step_event()
        if ended.reason == "stopped":
            yield self.save("stop")
        elif ended.reason != "failed":
            yield from self.evaluate()
            yield self.save("final")
            yield from self._final_weights()
        yield ended
