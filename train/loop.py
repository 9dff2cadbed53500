"""The training loop: an iterator of events.

    for event in Trainer(config, run).run(): ...

Whoever iterates decides what becomes of the events (the log, a terminal, a test). The loop reads
its commands from the run's control inbox between two steps and writes checkpoints into the run
directory. Several processes that train one model walk through it side by side; what only one of
them may do, or find out for all, goes through ``processes.first``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import torch
from torch import Tensor

from tfm.core.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from tfm.core.model import Model, build_model
from tfm.train import guard
from tfm.train.batching import BatchOrder, Place
from tfm.train.beginning import base_of, differences, find_initial, make_shared_task, too_often
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
    Sample,
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
from tfm.train.parallel import ALONE, Processes, SharedInbox
from tfm.train.replicas import Replica, Weights
from tfm.train.run_dir import RunDir
from tfm.train.schedules import learning_rate
from tfm.train.state import Progress, Window, load_weights, make_optimizer, seed_of
from tfm.train.steering import obey, obey_early
from tfm.train.tasks import Task
from tfm.train.tasks.scores import quality

Reason = Literal["interval", "best", "command", "stop", "final", "average"]


class Trainer:
    """Trains one run from its config, or goes on from its newest checkpoint."""

    task: Task
    model: Model
    replica: Replica
    keeper: CheckpointKeeper
    order: BatchOrder

    def __init__(
        self, config: TrainConfig, run: RunDir, resume: bool = False, processes: Processes = ALONE
    ) -> None:
        """What takes time happens in :meth:`run`.

        Raises:
            ValueError: the machine cannot do what the config asks for.
        """
        self.config, self.run_dir, self.processes = config, run, processes
        self.device = find_device(config.loop.device, processes.local_rank if processes.several else None)
        self.precision = find_precision(config.loop.precision, self.device)
        if config.loop.threads:
            torch.set_num_threads(config.loop.threads)
        self.inbox = SharedInbox(ControlInbox(run), processes)
        self.progress = Progress(laid_out_for=processes.world_size, world_size=processes.world_size)
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
        first = self.processes.first
        whole, problems = (
            first(lambda: newest_whole(self.run_dir), tuple[Path | None, list[str]])
            if self._resume
            else (None, [])
        )
        start = load_checkpoint(whole or find_initial(loop.init_from)) if whole or loop.init_from else None
        base = base_of(start, self.config, resumed=whole is not None) if start else None
        making = make_shared_task(self.config, base, self.processes)
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
        torch.manual_seed(loop.seed)
        self.model = build_model(self.task.model_config)
        if start:
            load_weights(self.model, dict(start.model.named_parameters()))
        self.replica = self._replicate()
        self.average = WeightAverage(self.model, optim.ema) if optim.ema else None
        self.optimizer = make_optimizer(self.model, optim.betas, optim.eps, optim.weight_decay)
        self._draw_apart()
        if whole:
            problems += self._restore(whole)
            self._keep(lambda: self.keeper.settle_best(self.progress))
        n_batches = loop.accumulate * self.progress.laid_out_for  # of a step
        self.order = BatchOrder(
            lambda epoch: self.task.epoch(max(loop.batch_tokens // n_batches, 1), loop.seed, epoch),
            loop.accumulate,
            self.processes.rank,
            self.processes.world_size,
            self.progress.laid_out_for,
        )
        if self.progress.corpus not in ("", corpus):
            problems.append("the corpus is not the one that this run began with; its batches are others now")
        self.progress.corpus = corpus
        if loop.compile and (problem := compile_layers(self.model, self._try_a_pass)):
            problems.append(f"the layers are not compiled: {problem}")
        if loop.gradient_checkpointing:
            recompute_activations(self.model)
        self.replica.join()
        if start and not whole and (fields := differences(self.config, self.task.model_config)):
            problems.append(f"the architecture is that of {start.path.name}; not what [model] says: {fields}")
        problems += too_often(loop, len(self.order.epoch(self.progress.epoch)) / n_batches)
        yield self._started(self.progress.step if whole else None)
        yield from (Notice(level="warning", message=text) for text in (*problems, *self.task.notices))

    def _replicate(self) -> Replica:
        """Put the model where this process trains it."""
        if self.processes.several and self.config.loop.parallel == "fsdp":
            from tfm.train.shards import ShardedReplica  # slow to import

            return ShardedReplica(self.model, self.task, self.processes, self.device)
        self.model.to(self.device)
        return Replica(self.model, self.task, self.processes)

    def _draw_apart(self) -> None:
        """Have the processes that share a model drop out different numbers."""
        if self.processes.several:
            torch.manual_seed(seed_of(self.config.loop.seed, self.processes.rank, self.progress.step))

    def _restore(self, folder: Path) -> list[str]:
        """Be what a checkpoint holds; what a person should know of how far that is so.

        Raises:
            CheckpointError: it cannot be resumed from; nothing is changed then.
        """
        self.progress = self.replica.restore(folder, self.optimizer, self.average)
        before, now = self.progress.world_size, self.processes.world_size
        if before == now:
            return []
        self.progress.world_size = now
        torch.manual_seed(seed_of(self.config.loop.seed, self.processes.rank, self.progress.step))
        return [
            f"{folder.name} was written by {_count(before)} and goes on with {_count(now)}: the "
            "batches are the same, but what is drawn at random is not what it would have been"
        ]

    # ----------------------------------------------------------------- one step
    def _step(self) -> tuple[str, list[Place]]:
        """One optimiser step. Returns why its update was not applied ("": it was), and its batches."""
        began = time.perf_counter()
        self.model.train()
        progress, window = self.progress, self.progress.window
        places, after = self.order.step((progress.epoch, progress.batch), progress.guard.left_out)
        *before, last = self.order.share(places)
        with self.replica.before_last():
            losses = [self._forward_backward(indices) for indices in before]
        losses.append(self._forward_backward(last))
        total, nll, correct, n_tokens = self._sums(losses)
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_div_(gradients, n_tokens / self.processes.world_size)  # they are means of sums
        norm = self.replica.gradient_norm(gradients)
        torch.nn.utils.clip_grads_with_norm_(parameters, self.config.optim.clip_norm or math.inf, norm)
        grad_norm = float(norm)
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
        window.nll += nll
        window.correct += correct
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
            loss = self.replica.loss(indices, self._r_drop(), self.device, self.precision)
        loss.total.backward()  # type: ignore[no-untyped-call]
        return loss

    def _sums(self, losses: list[Loss]) -> tuple[float, float, float, int]:
        """Loss, log-likelihood, tokens predicted right and all tokens of a step, of all processes."""
        total, nll, correct, n_tokens = self.processes.sums((
            sum(float((loss.total - loss.penalty).detach()) for loss in losses),
            sum(float(loss.nll.detach()) for loss in losses),
            sum(float(loss.correct.detach()) for loss in losses),
            sum(loss.n_tokens for loss in losses),
        ))  # fmt: skip
        return total, nll, correct, int(n_tokens)

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
        good = self.processes.first(lambda: self.keeper.good_point(state.in_a_row), Path | None)
        yield from self.go_back(good, message)
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
        before, problems = self.progress, list[str]()
        if folder is None:
            self._begin()
        else:
            problems = self._restore(folder)
        self.progress.seconds, self.progress.prompts = before.seconds, before.prompts
        self.progress.window = Window()
        self.last_scores = None
        self._keep(lambda: self.keeper.rewind(folder, self.progress))
        path = "" if folder is None else folder.name
        yield RolledBack(step=self.progress.step, from_step=before.step, path=path, message=why)
        yield from (Notice(level="warning", message=text) for text in problems)

    def _keep(self, settle: Callable[[], None]) -> None:
        """Have the first process settle which checkpoints are kept; if that undoes the best, all know."""

        def best() -> tuple[int | None, float | None]:
            settle()
            return self.progress.best_step, self.progress.best_value

        found = self.processes.first(best, tuple[int | None, float | None])
        self.progress.best_step, self.progress.best_value = found

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
        before = self.progress
        self.progress = Progress(
            corpus=before.corpus, laid_out_for=before.laid_out_for, world_size=before.world_size
        )
        self._draw_apart()

    # ----------------------------------------------------------------- what is told
    def _started(self, resumed_from: int | None) -> RunStarted:
        return RunStarted(
            run=self.run_dir.id,
            objective=self.config.objective,
            n_parameters=sum(p.numel() for p in self.model.parameters()),
            total_steps=self.config.loop.max_steps,
            steps_per_epoch=-(-len(self.order.epoch(self.progress.epoch)) // self.order.n_batches),
            device=device_name(self.device),
            precision="bf16" if self.precision is torch.bfloat16 else "fp32",
            resumed_from=resumed_from,
            processes=self.processes.world_size,
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
        with untouched_randomness(self.device), self.replica.inference(self.average) as model:
            yield Checkpoint(model, self.task.model_config, self.task.tokenizer, self.run_dir.path)

    def _scores(self) -> Evaluated:
        with self._inference() as checkpoint:
            return self.processes.first(lambda: self.task.evaluate(checkpoint, self.progress.step), Evaluated)

    def evaluate(self) -> Iterator[AnyTrainEvent]:
        """Scores and samples; a checkpoint where they are the best so far."""
        began = time.perf_counter()
        scores = self._scores()
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
            made = self.processes.first(lambda: self.task.samples(checkpoint, prompts), tuple[Sample, ...])
        return Samples(step=self.progress.step, samples=made)

    # ----------------------------------------------------------------- checkpoints
    def save(self, reason: Reason) -> CheckpointSaved:
        """Commit the state as it is now."""
        place = self.run_dir.checkpoint_path(self.progress.step)
        weights: Weights = {}
        state: dict[str, Tensor] = {}
        if not self.processes.first(lambda: place in self.run_dir.checkpoints(), bool):
            weights, state = self.replica.capture(self.optimizer, self.average, place)

        def write() -> Path:
            folder = self.keeper.save(weights, state, self.progress, self.last_scores)
            if reason == "best":
                self.keeper.pin_best(self.progress)
            return folder

        folder = self.processes.first(write, Path)
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
            load_weights(self.model, self.average.tensors)
        else:
            folders = self.processes.first(lambda: self.keeper.last(count), list[Path]) if count > 1 else []
            if len(folders) < 2:
                return
            averaged = [folder.name for folder in folders]
            load_weights(self.model, mean_weights(folders))
            self.last_scores = self._scores()
            yield self.last_scores
        weights, scores, by = self.replica.weights(), self.last_scores, self.config.loop.best_by
        value = None if scores is None else quality(scores, by)

        def write() -> Path:
            place = self.keeper.save_average(weights, averaged, self.progress, scores)
            if self.progress.best_step is not None:
                self.keeper.pin_best(self.progress, value)
            return place

        folder = self.processes.first(write, Path)
        yield CheckpointSaved(step=self.progress.step, path=folder.name, reason="average")
        best = self.progress.best_value
        if value is not None and best is not None and value < best:
            message = f"step {self.progress.best_step:,} has a better {by} than the average"
            yield Notice(level="info", message=f"{message}: as a model, {self.run_dir.id} is that step")

    # ----------------------------------------------------------------- the end
    def _end(self) -> RunEnded | None:
        step, loop, progress = self.progress.step, self.config.loop, self.progress
        if self.stopping:
            return RunEnded(reason="stopped", step=step, message=self.stopping)
        if step >= loop.max_steps:
            return RunEnded(reason="finished", step=step)
        if loop.max_minutes and self.processes.of_first(progress.seconds) >= loop.max_minutes * 60:
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


def _count(processes: int) -> str:
    return "1 process" if processes == 1 else f"{processes} processes"
