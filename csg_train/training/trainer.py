"""The trainer: the training loop for any method.

Mixed precision, accumulation, several processes, logging, checkpoints and stopping are here; what is learned is the
method's.
"""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from rich.progress import Progress, TaskID
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from csg.console import log, progress
from csg.errors import InputError, UsageError
from csg.provenance import ClassificationEvaluation, SegmentationEvaluation
from csg_train.data.loading import StepBatchSampler, batches
from csg_train.distributed import any_rank, barrier, mean_over_processes, rank, world_size
from csg_train.energy import Energy, hyperspherical_energy
from csg_train.methods.base import Batch, Method
from csg_train.recipe import Recipe
from csg_train.tasks import TASKS, Images, predicting
from csg_train.training.checkpoint import TrainingState
from csg_train.training.finite import finite_or_none, non_finite
from csg_train.training.metrics_log import MetricsLine, MetricsLog
from csg_train.training.optimizer import TrainingPrecision, make_optimiser, poly, set_learning_rates
from csg_train.training.run_folder import DIVERGED, RESULT, Run, RunResult
from csg_train.training.signals import Stop, Stopped

LOG_EVERY = 10  # steps
CHECKPOINT_EVERY_S = 300.0


@dataclass(kw_only=True)
class Trainer:
    """One run of a method."""

    run: Run
    """Its folder."""
    recipe: Recipe
    """Its settings."""
    method: Method
    """The method, on the device."""
    images: Images
    """The training images."""
    test_images: Images | None
    """The images to measure on, with the classes of the training images; None: nothing is measured."""
    device: torch.device
    """The device to train on."""
    precision: TrainingPrecision
    """The precision of the forward pass."""
    step: int = 0
    """Steps made so far."""
    unreadable: int = 0
    """Images that were skipped so far."""
    stop: Stop = field(default_factory=Stop)
    """Whether the user has stopped the run."""

    def __post_init__(self) -> None:
        optim = self.recipe.optim
        self.batch = min(optim.batch, len(self.images))
        if self.batch % world_size():
            what = f"batches of {self.batch} images cannot be divided among {world_size()} processes"
            raise UsageError(what, "set a multiple: --set optim.batch=N")
        if world_size() > 1 and self.recipe.data.on_unreadable == "skip":
            raise UsageError(
                "several processes must have equal shares of each batch", "leave out --set data.on_unreadable=skip"
            )
        self.steps_per_epoch = len(self.images) // self.batch
        self.steps = self.recipe.schedule(len(self.images))
        self.optimiser = make_optimiser(self.method, optim)
        self.model = DistributedDataParallel(self.method, broadcast_buffers=False) if world_size() > 1 else self.method
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision.name == "fp16")
        self.state = TrainingState(self.method, self.optimiser, self.scaler, self.device)
        self.metrics = MetricsLog(self.run)
        self.seconds, self.images_seen, self.steps_made = 0.0, 0, 0
        self.logged = (0, 0.0)

    def train(self) -> RunResult:
        """Train to the end, and measure.

        Raises:
            Stopped: by Ctrl-C or SIGTERM; the run can be resumed.
            InputError: the training diverged, or an image cannot be read.
        """
        if not self._restore():
            self.method.prepare(self._batches(2**62))
        with self.stop.listening(), self.metrics.open(self.step):
            self._steps()
            evaluation, energy = self._measure()
        result = RunResult(
            run=str(self.run.path),
            steps=self.step,
            images_per_s=round(self.images_seen / self.seconds, 1) if self.seconds else 0.0,
            seconds_per_step=round(self.seconds / self.steps_made, 4) if self.steps_made else 0.0,
            peak_memory_mib=peak_memory_mib(self.device),
            unreadable=self.unreadable,
            real=None if self.recipe.data.holdout else evaluation,
            held_out=evaluation if self.recipe.data.holdout else None,
            energy=energy,
        )
        if rank() == 0:
            self.run.write_student(self.method.student.state_dict())
            self.run.write_record(RESULT, result)
            self.run.drop_checkpoints()
        barrier()
        return result

    def _batches(self, end: int) -> Iterator[Batch]:
        """This process's share of the batches from the current step to `end`, on the device."""
        recipe = self.recipe
        views = TASKS[recipe.task].views(self.images, recipe, self.method.views)
        sampler = StepBatchSampler(len(self.images), self.batch, recipe.seed, range(self.step, end))
        data, pin = recipe.data, self.device.type == "cuda"
        for loaded in batches(views, sampler, data.on_unreadable, workers=data.workers, pin_memory=pin):
            self._note_unreadable(loaded.unreadable)
            yield Batch(*(tensor.to(self.device, non_blocking=True) for tensor in (loaded.views, loaded.labels)))

    def _steps(self) -> None:
        self.method.train()
        saved, started = time.monotonic(), time.monotonic()
        with progress() as bar:
            task = bar.add_task("training", total=self.steps, completed=self.step, note="")
            for batch in self._batches(self.steps):
                values = self._one_step(batch)
                self.steps_made += 1
                self.images_seen += world_size() * len(batch.labels)
                self.seconds = time.monotonic() - started
                self._log(values, bar, task)
                epoch_ends = self.step % self.steps_per_epoch == 0
                if epoch_ends:
                    self.method.after_epoch()
                stop, due = any_rank(self.stop.wanted, time.monotonic() - saved > CHECKPOINT_EVERY_S)
                if stop or due or epoch_ends:
                    self._save()
                    saved = time.monotonic()
                if stop:
                    raise Stopped(
                        f"stopped after step {self.step} of {self.steps}",
                        f"continue with `csg train {self.recipe.task} --resume --out {self.run.path}`",
                    )
                every = self.recipe.evaluate_every * self.steps_per_epoch
                if every and self.step % every == 0 and self.step < self.steps:
                    self._measure()

    def _one_step(self, batch: Batch) -> dict[str, Tensor]:
        """Make one optimiser step; returns what is logged, still on the device."""
        optim = self.recipe.optim
        set_learning_rates(self.optimiser, self.method, optim, poly(self.step, self.steps, optim.power))
        self.optimiser.zero_grad(set_to_none=True)
        parts = batch.split(optim.accumulate)
        logged: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.device))
        for part in parts:
            share = len(part.labels) / len(batch.labels)
            with self._gradient_sync(part is parts[-1]):
                with torch.autocast(self.device.type, self.precision.dtype, enabled=self.precision.name != "fp32"):
                    losses, figures = self.model(part)
                total = torch.stack(list(losses.values())).sum()
                self.scaler.scale(share * total).backward()  # type: ignore[no-untyped-call]
            named = {"loss": total} | {f"loss/{name}": value for name, value in losses.items()} | figures
            for name, value in named.items():
                logged[name] += share * value.detach()
        if optim.clip is not None:
            self.scaler.unscale_(self.optimiser)
            trained = (p for group in self.optimiser.param_groups for p in group["params"])
            logged["gradient_norm"] += torch.nn.utils.clip_grad_norm_(trained, optim.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.method.after_step()
        self.step += 1
        return logged

    def _gradient_sync(self, last: bool) -> AbstractContextManager[Any]:
        """Average gradients over the processes once a step, with its last part."""
        return nullcontext() if last or world_size() == 1 else cast(DistributedDataParallel, self.model).no_sync()

    def _log(self, values: dict[str, Tensor], bar: Progress, task: TaskID) -> None:
        bar.advance(task)
        if self.step % LOG_EVERY and self.step != self.steps:
            return
        means = mean_over_processes(torch.stack([value.float() for value in values.values()])).tolist()
        figures = {name: finite_or_none(round(value, 6)) for name, value in zip(values, means, strict=True)}
        if None in figures.values():
            self._stop_if_diverged()
            log(f"warning: step {self.step}: a loss is not finite")
        figures |= {f"lr/{group['name']}": group["lr"] for group in self.optimiser.param_groups}
        seen, seconds = self.images_seen - self.logged[0], self.seconds - self.logged[1]
        self.logged = (self.images_seen, self.seconds)
        figures["images_per_s"] = round(seen / seconds, 1)
        self.metrics.write(MetricsLine(self.step, figures))
        loss = "not finite" if figures["loss"] is None else f"{figures['loss']:.3f}"
        bar.update(task, note=f"loss {loss}")
        if self.step % self.steps_per_epoch < LOG_EVERY and not bar.live.is_started:
            log(f"step {self.step}/{self.steps}  loss {loss}  {figures['images_per_s']:.0f} images/s")

    def _stop_if_diverged(self) -> None:
        """Raise InputError if the student's weights or running statistics are not finite in any process."""
        if not any_rank(bool(non_finite(self.method.student.state_dict())))[0]:
            return
        what = f"training diverged: at step {self.step} weights are not finite"
        if rank() == 0:
            self.run.write(DIVERGED, f"{what}\n")
        raise InputError(what, "lower the learning rates (--set optim.lr_backbone=...) or the method's weight")

    def _measure(self) -> tuple[ClassificationEvaluation | SegmentationEvaluation | None, Energy | None]:
        """Scores and energies, measured in fp32 by the first process."""
        self._stop_if_diverged()
        if self.test_images is None or rank():
            return None, None
        task, kind = TASKS[self.recipe.task], "held_out" if self.recipe.data.holdout else "real"
        with predicting(self.method.student) as predict:
            found = task.measure(predict, self.images.class_spec, self.test_images, self.recipe, device=self.device)
        scores = {name: float(getattr(found.evaluation, name)) for name in task.scores}
        text = ", ".join(f"{task.scores[name].removesuffix(' %')} {value:.2%}" for name, value in scores.items())
        count, name = found.evaluation.images, self.test_images.name
        log(f"step {self.step}: {count} {kind.replace('_', '-')} images ({name}): {text}")
        energy = hyperspherical_energy(found.embeddings)
        if energy:
            scores |= {"E_0": energy.E_0, "E_1": energy.E_1, "E_2": energy.E_2}
        self.metrics.write(MetricsLine(self.step, {f"{kind}/{name}": value for name, value in scores.items()}))
        return found.evaluation, energy

    def _note_unreadable(self, lines: list[str]) -> None:
        for line in lines:
            log(f"skipped: {line}")
        self.unreadable += len(lines)

    def _save(self) -> None:
        self._stop_if_diverged()
        tensors = self.state.pack()
        if rank() == 0:
            self.run.save_checkpoint(self.step, tensors | {"unreadable": torch.tensor(self.unreadable)})
        barrier()

    def _restore(self) -> bool:
        found = self.run.load_checkpoint()
        if found is None:
            return False
        self.step, tensors = found
        self.state.unpack(tensors)
        self.unreadable = int(tensors["unreadable"])
        log(f"resumed after step {self.step} of {self.steps}")
        return True


def peak_memory_mib(device: torch.device) -> int:
    """Peak memory in MiB: what torch allocated on the GPU, or the resident set of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # Linux counts KiB
