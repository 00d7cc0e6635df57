"""The trainer: the training loop for any method.

Mixed precision, accumulation, several processes, logging, checkpoints and stopping are here; what is learned is the
method's.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor
from torch.profiler import record_function

from csg.console import log
from csg.errors import InputError, one_line
from csg_train.distributed import any_rank, barrier, broadcast_object, rank, said_once, sum_over_processes
from csg_train.methods.base import Batch, Method
from csg_train.models.lora import merge_lora
from csg_train.recipe import Recipe
from csg_train.tasks import NotFiniteError
from csg_train.training.batch_rules import batch_size, check_parts
from csg_train.training.checkpoint import TrainingState
from csg_train.training.conclusion import Conclusion
from csg_train.training.dense_average import DenseAverage
from csg_train.training.environment import peak_memory_mib
from csg_train.training.health import Health
from csg_train.training.kept_features import FeatureBatches
from csg_train.training.kept_weights import kept_weights
from csg_train.training.measurements import Measurements, held_out_loss
from csg_train.training.optimizer import TrainingPrecision
from csg_train.training.pictures import keep_pictures
from csg_train.training.profiling import WAIT, profiled
from csg_train.training.progress_report import ProgressReport, progress_report
from csg_train.training.run_data import RunImages
from csg_train.training.run_files import RESULT
from csg_train.training.run_folder import Run
from csg_train.training.run_result import RunResult
from csg_train.training.schedule import Schedule
from csg_train.training.signals import Interrupted, Stop, Stopped
from csg_train.training.speed import set_device, set_network, without_compiling
from csg_train.training.step_log import StepLog
from csg_train.training.stepping import Stepping
from csg_train.training.throughput import Throughput
from csg_train.training.trackers.tracking import Trackers
from csg_train.training.training_batches import TrainingBatches

Value = TypeVar("Value")
CHECKPOINT_EVERY_S = 300.0
MUST_COUNT = 100  # steps in which at least one pixel must belong to a class


@dataclass(kw_only=True)
class Trainer:
    """One run of a method."""

    run: Run
    """Its folder."""
    recipe: Recipe
    """Its settings."""
    method: Method
    """The method, on the device."""
    images: RunImages
    """The images to train and to measure on."""
    device: torch.device
    """The device to train on."""
    precision: TrainingPrecision
    """The precision of the forward pass."""
    step: int = 0
    """Steps made so far."""
    profile: int = 0
    """Steps of the first process to profile."""
    stop: Stop = field(default_factory=Stop)
    """Whether the user has stopped the run."""

    def __post_init__(self) -> None:
        recipe, optim = self.recipe, self.recipe.optim
        count = len(self.images.training)
        self.batch = batch_size(optim, count)
        check_parts(self.method, recipe.model, optim, self.batch)
        self.steps_per_epoch = count // self.batch
        self.schedule = Schedule.of(recipe, count)
        self.steps = self.schedule.steps
        student = self.method.student
        set_device(recipe.speed, self.device)
        set_network(self.method, recipe.speed, self.device)
        self.batches = TrainingBatches(recipe, self.images.training, self.method, device=self.device, batch=self.batch)
        self.features = FeatureBatches(self.batches, self.schedule, self.precision)
        self.throughput = Throughput(self.device)
        self.stepping = Stepping(
            self.method, recipe, schedule=self.schedule, precision=self.precision, device=self.device
        )
        self.weights = kept_weights(student, recipe, self.schedule)
        self.state = TrainingState(
            self.method, self.stepping.optimiser, self.stepping.scaler, self.device, self.weights
        )
        self.measurements = Measurements(self.run, recipe, self.images, stop=self.stop, device=self.device)
        self.metrics = self.measurements.metrics
        self.saved: tuple[int, float] = (0, time.monotonic())
        self.health = Health(self.run, student, images=count, device=self.device)
        self.step_log = StepLog(self.metrics, self.stepping.optimiser, self.throughput, self.health)

    def train(self, trackers: Trackers) -> RunResult:
        """Train to the end, and measure; the trackers are told.

        Raises:
            Stopped: by Ctrl-C, SIGTERM or SIGHUP; the run can be resumed.
            InputError: the training diverged, an image cannot be read, or a loader process has died. The run can be
                resumed, unless it diverged.
        """
        if not self._restore():
            self.method.prepare(self.batches.of(range(self.step, 2**62)))
        broadcast_object(self.measurements.resume, self.step)
        with self.stop.listening(), self.metrics.open(self.step, trackers):
            self._steps()
            result = self._conclude(self._training_result())
            trackers.results(result)
        if rank() == 0:
            self.run.write_record(RESULT, result)
            self.run.drop_checkpoints()
        barrier()
        return result

    def time_steps(self, count: int, seconds: float) -> list[float]:
        """Make at most `count` steps, and none after `seconds`, without writing anything.

        Returns:
            The seconds until the first step was made, then those of each further one.
        """
        moments = [time.monotonic()]
        self.method.prepare(self.batches.of(range(self.step, 2**62)))
        self.method.train()
        with closing(self.features.of(range(min(count, self.steps)))) as batches:
            for batch in batches:
                float(self._one_step(batch)["loss"])  # waits for the device
                moments.append(time.monotonic())
                if moments[-1] - moments[1] > seconds:
                    break
        return [end - start for start, end in itertools.pairwise(moments)]

    def _training_result(self) -> RunResult:
        """The result without what was measured."""
        return RunResult(
            run=str(self.run.path),
            steps=self.step,
            images_per_s=self.throughput.images_per_s,
            seconds_per_step=self.throughput.seconds_per_step,
            waiting_for_data=self.throughput.waiting_share(),
            peak_memory_mib=peak_memory_mib(self.device),
            unreadable=sum_over_processes(self.batches.unreadable),
        )

    def _conclude(self, result: RunResult) -> RunResult:
        conclusion = Conclusion(self.run, self.measurements, self.method.student, self.batches.inputs)

        def conclude() -> RunResult:
            merge_lora(self.method.student)  # after the checkpoint, which has the low-rank changes
            whole = conclusion.make(result, self.weights, self.recipe.optim.wise)
            pictures = keep_pictures(self.run, self.recipe, self.method, images=self.images, scores=conclusion.scores)
            self.metrics.images(self.step, pictures)
            return whole

        return self._measured(conclude)

    def _steps(self) -> None:
        self.method.train()
        self._measure_if_due()
        self.throughput.start()
        with (
            progress_report(self.step, self.steps) as report,
            closing(self.features.of(range(self.step, self.steps))) as batches,
            profiled(self.run, self.profile, self.steps - self.step) as profiler,
        ):
            while self.step < self.steps:
                batch, line = self._next(batches, report)
                values = self._one_step(batch)
                self.throughput.made(len(batch.labels))
                report.advance()
                profiler.step()
                self.step_log.add(values, self.step, report, last=self.step == self.steps, line=line)
                if self.throughput.steps == MUST_COUNT or self.step == self.steps:
                    self.health.require_labels()
                if self.step % self.steps_per_epoch == 0:
                    self.method.after_epoch()
                    self._save()
                self.throughput.leave_out(self._measure_if_due())

    def _next(self, batches: Iterator[Batch], report: ProgressReport) -> tuple[Batch, bool]:
        """The next batch, and whether its step is shown in a line; all processes stop, fail and save together.

        Raises:
            Stopped, InputError: after a checkpoint, in the process where it happened; the others end quietly.
        """
        batch, error = None, None
        try:
            with self.stop.interruptible(), self.throughput.waiting.measured(), record_function(WAIT):
                batch = next(batches)
        except Interrupted:
            pass
        except InputError as found:
            error = found
        due = time.monotonic() - self.saved[1] > CHECKPOINT_EVERY_S
        line = rank() == 0 and report.line_due
        stop, failed, due, line = any_rank(self.stop.wanted, error is not None, due, line)
        if stop or failed or due:
            self._save()
        if error:
            raise InputError(error.message, f"{error.hint}; then continue with `{self.run.resume_command}`")
        if failed:
            sys.exit(InputError.exit_code)
        if stop:
            with said_once():
                raise self._stopped()
        assert batch is not None
        return batch, line

    def _stopped(self) -> Stopped:
        return Stopped(f"stopped after step {self.step} of {self.steps}", f"continue with `{self.run.resume_command}`")

    def _one_step(self, batch: Batch) -> dict[str, Tensor]:
        """Make one optimiser step; returns what is logged, still on the device."""
        logged = self.stepping.make(batch, self.step)
        self.health.saw(batch.labels)
        self.step += 1
        if self.weights:
            self.weights.update(self.step)
        return logged

    def _measure_if_due(self) -> float:
        """Measure the student every N steps, at the end in the conclusion; returns the seconds that it took."""
        started = time.monotonic()
        every = self.recipe.evaluate_every
        if every and 0 < self.step < self.steps and self.step % every == 0:
            loss = self._measured(self._take)
            if isinstance(self.weights, DenseAverage) and loss is not None:
                self.weights.observe(self.step, loss)
        return time.monotonic() - started

    def _take(self) -> float | None:
        """Measure the student; returns its loss on the held-out images if SWAD needs it."""
        found = self.measurements.take(self.method.student, self.step)
        return held_out_loss(found) if isinstance(self.weights, DenseAverage) else None

    def _measured(self, make: Callable[[], Value]) -> Value:
        """What `make` gives in the first process, while the others wait; before it a checkpoint is written.

        Raises:
            Stopped: a signal ended it; the run can be resumed.
            InputError: the training diverged.
        """
        self.health.require_finite(self.step)
        if self.measurements.kinds and self.saved[0] != self.step:
            self._save()

        def unless_over() -> Value:
            try:
                return make()
            except Interrupted:
                raise self._stopped() from None
            except NotFiniteError:
                raise self.health.diverged(self.step, "the network's answers") from None

        with without_compiling(self.recipe.speed):
            return broadcast_object(unless_over)

    def _save(self) -> None:
        self.health.require_finite(self.step)
        unreadable = sum_over_processes(self.batches.unreadable)
        if self.step:
            tensors = self.state.pack() | {"unreadable": torch.tensor(unreadable)}
            broadcast_object(self.run.save_checkpoint, self.step, tensors)
        self.saved = (self.step, time.monotonic())

    def _restore(self) -> bool:
        found = self.run.load_checkpoint()
        if found is None:
            return False
        self.step, tensors = found
        try:
            self.state.unpack(tensors)
        except (RuntimeError, ValueError) as error:
            what = f"the checkpoint of run {self.run.path} does not fit its network: {one_line(error, 160)}"
            raise InputError(what, "resume it with the csg that started it, or start a new run") from None
        self.batches.unreadable = 0 if rank() else int(tensors["unreadable"])
        self.saved = (self.step, time.monotonic())
        log(f"resumed after step {self.step} of {self.steps}")
        return True
