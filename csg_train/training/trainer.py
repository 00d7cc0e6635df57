"""The trainer: the loop, readable top to bottom, for any Method.

Mixed precision, accumulation, several processes, logging, checkpoints and stopping are here; what is learned is the
method's.
"""

from __future__ import annotations

import json
import math
import resource
import time
from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from rich.progress import Progress, TaskID
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from csg.console import log, progress
from csg.errors import InputError, UsageError
from csg_train.data.loading import StepBatchSampler, batches
from csg_train.distributed import any_rank, barrier, mean_over_processes, rank, world_size
from csg_train.energy import hyperspherical_energy
from csg_train.methods.base import Batch, Method
from csg_train.recipe import Recipe
from csg_train.tasks import TASKS, Images, predicting
from csg_train.training.checkpoint import pack, unpack
from csg_train.training.metrics_log import Curves
from csg_train.training.optimizer import Precision, make_optimiser, poly, set_learning_rates
from csg_train.training.run_folder import DIVERGED, Run
from csg_train.training.signals import Stop, Stopped

LOG_EVERY = 10  # steps
CHECKPOINT_EVERY_S = 300.0


@dataclass
class Trainer:
    """One run of a method.

    measured: the set to measure on, in the order of the classes trained on; None: nothing is measured.
    """

    run: Run
    recipe: Recipe
    method: Method
    images: Images
    measured: Images | None
    device: torch.device
    precision: Precision
    step: int = 0
    unreadable: int = 0
    stop: Stop = field(default_factory=Stop)

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
        self.steps = min(optim.epochs * self.steps_per_epoch, optim.max_steps or 2**62)
        self.optimiser = make_optimiser(self.method, optim)
        self.model = DistributedDataParallel(self.method, broadcast_buffers=False) if world_size() > 1 else self.method
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision.name == "fp16")
        self.curves = Curves(self.run)
        self.seconds, self.images_seen, self.steps_made = 0.0, 0, 0
        self.logged = (0, 0.0)

    def train(self) -> dict[str, Any]:
        """Run to the end, and measure.

        Returns:
            The run's result (csg_train/training/run_folder.py).

        Raises:
            Stopped: by Ctrl-C or SIGTERM; the run can be resumed.
        """
        if not self._restore():
            self.method.prepare(self._batches(endless=True))
        with self.stop.listening(), self.curves.open(self.step):
            self._steps()
            figures = self._measure()
        result = {
            "run": str(self.run.path),
            "steps": self.step,
            "images_per_s": round(self.images_seen / self.seconds, 1) if self.seconds else 0.0,
            "seconds_per_step": round(self.seconds / self.steps_made, 4) if self.steps_made else 0.0,
            "peak_memory_mib": peak_memory_mib(self.device),
            "unreadable": self.unreadable,
        } | figures
        if rank() == 0:
            self.run.write_student(self.method.student.state_dict())
            self.run.write("result.json", json.dumps(result, indent=2) + "\n")
            self.run.drop_checkpoints()
        barrier()
        return result

    def _batches(self, endless: bool = False) -> Any:
        """This process's share of each batch of the steps to come, on the device."""
        recipe = self.recipe
        views = TASKS[recipe.task].views(self.images, recipe, self.method.views)
        total = 2**62 if endless else self.steps
        sampler = StepBatchSampler(len(self.images), self.batch, recipe.seed, range(self.step, total))
        data, pin = recipe.data, self.device.type == "cuda"
        for loaded in batches(views, sampler, data.on_unreadable, data.workers, pin):
            self._note_unreadable(loaded.unreadable)
            yield Batch(*(tensor.to(self.device, non_blocking=True) for tensor in (loaded.views, loaded.labels)))

    def _steps(self) -> None:
        self.method.train()
        saved, started = time.monotonic(), time.monotonic()
        with progress() as bar:
            task = bar.add_task("training", total=self.steps, completed=self.step, note="")
            for batch in self._batches():
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
                        f"go on with `csg train {self.recipe.task} --resume --out {self.run.path}`",
                    )
                every = self.recipe.evaluate_every * self.steps_per_epoch
                if every and self.step % every == 0 and self.step < self.steps:
                    self._measure()

    def _one_step(self, batch: Batch) -> dict[str, Tensor]:
        """One optimiser step; returns what is logged, still on the device."""
        optim = self.recipe.optim
        set_learning_rates(self.optimiser, self.method, optim, poly(self.step, self.steps, optim.power))
        self.optimiser.zero_grad(set_to_none=True)
        parts = batch.split(optim.accumulate)
        logged: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.device))
        for part in parts:
            share = len(part.labels) / len(batch.labels)
            with self._gradients_shared(part is parts[-1]):
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

    def _gradients_shared(self, now: bool) -> AbstractContextManager[Any]:
        """Gradients are averaged over the processes once a step, with its last part."""
        return nullcontext() if now or world_size() == 1 else cast(DistributedDataParallel, self.model).no_sync()

    def _log(self, values: dict[str, Tensor], bar: Progress, task: TaskID) -> None:
        bar.advance(task)
        if self.step % LOG_EVERY and self.step != self.steps:
            return
        means = mean_over_processes(torch.stack([value.float() for value in values.values()])).tolist()
        line = {name: round(value, 6) for name, value in zip(values, means, strict=True)}
        if not all(math.isfinite(value) for value in means):
            self._stop_if_diverged()
            log(f"warning: step {self.step}: a loss is not finite")
        line |= {f"lr/{group['name']}": group["lr"] for group in self.optimiser.param_groups}
        seen, seconds = self.images_seen - self.logged[0], self.seconds - self.logged[1]
        self.logged = (self.images_seen, self.seconds)
        line["images_per_s"] = round(seen / seconds, 1)
        self.curves.write(self.step, line)
        bar.update(task, note=f"loss {line['loss']:.3f}")
        if self.step % self.steps_per_epoch < LOG_EVERY and not bar.live.is_started:
            log(f"step {self.step}/{self.steps}  loss {line['loss']:.3f}  {line['images_per_s']:.0f} images/s")

    def _stop_if_diverged(self) -> None:
        if all(bool(weight.isfinite().all()) for weight in self.method.student.parameters()):
            return
        what = f"training diverged: at step {self.step} weights are not finite any more"
        self.run.write(DIVERGED, f"{what}\n")
        raise InputError(what, "lower the learning rates (--set optim.lr_backbone=...) or the method's weight")

    def _measure(self) -> dict[str, Any]:
        """Accuracy and energies in fp32, by the first process: `real` or `held_out`, and `energy`."""
        if self.measured is None or rank():
            return {}
        task, kind = TASKS[self.recipe.task], "held_out" if self.recipe.data.holdout else "real"
        with predicting(self.method.student) as predict:
            found = task.measure(predict, self.images.class_spec, self.measured, self.recipe, self.device)
        evaluation = found.evaluation.model_dump()
        line = {name: evaluation[name] for name in task.SCORES}
        words = ", ".join(f"{task.SCORES[name].removesuffix(' %')} {value:.2%}" for name, value in line.items())
        log(f"step {self.step}: {evaluation['images']} {kind.replace('_', '-')} images ({self.measured.name}): {words}")
        energy = hyperspherical_energy(found.embeddings)
        line |= {name: getattr(energy, name) for name in ("E_0", "E_1", "E_2") if energy}
        self.curves.write(self.step, {f"{kind}/{name}": value for name, value in line.items()})
        return {kind: evaluation, "energy": energy.as_dict() if energy else None}

    def _note_unreadable(self, lines: list[str]) -> None:
        for line in lines:
            log(f"left out: {line}")
        self.unreadable += len(lines)

    def _save(self) -> None:
        tensors = pack(self.method, self.optimiser, self.scaler, self.device)
        if rank() == 0:
            self.run.save_checkpoint(self.step, tensors | {"unreadable": torch.tensor(self.unreadable)})
        barrier()

    def _restore(self) -> bool:
        found = self.run.load_checkpoint()
        if found is None:
            return False
        self.step, tensors = found
        unpack(tensors, self.method, self.optimiser, self.scaler, self.device)
        self.unreadable = int(tensors["unreadable"])
        log(f"resumed after step {self.step} of {self.steps}")
        return True


def peak_memory_mib(device: torch.device) -> int:
    """Most memory that was in use: the GPU's that torch took, or this process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # Linux counts KiB
