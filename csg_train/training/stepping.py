"""One step of the optimiser: mixed precision, accumulation, gradient scaling, clipping."""

from __future__ import annotations

import warnings
from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from csg.errors import UsageError, one_line
from csg_train.distributed import world_size
from csg_train.methods.base import Batch, Losses, Method
from csg_train.models.timm_backbone import TimmStages, feeds_last_map
from csg_train.recipe import Recipe
from csg_train.training.optimizer import TrainingPrecision, make_optimiser, set_learning_rates
from csg_train.training.schedule import Schedule


class Stepping:
    """Makes the steps of a method.

    Args:
        method: on the device.
        recipe: settings of the optimiser and its speed.
        schedule: of the training.
        precision: of the forward pass.
        device: that it trains on.

    Attributes:
        optimiser: SGD or AdamW, with its state.
        scaler: the gradient scaler; disabled unless the precision is fp16.
    """

    def __init__(
        self,
        method: Method,
        recipe: Recipe,
        *,
        schedule: Schedule,
        precision: TrainingPrecision,
        device: torch.device,
    ):
        self.method, self.schedule, self.precision, self.device = method, schedule, precision, device
        self.optim = recipe.optim
        self.optimiser = make_optimiser(method, self.optim, fused=recipe.speed.fused)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision.name == "fp16")
        self.model: nn.Module | None = None  # until the first step: what trains must not change below DDP

    def _begin(self, step: int) -> None:
        """Let what the schedule says train, and set the learning rates."""
        encoder, probe = self.method.student.encoder, self.schedule.probe
        if step < probe and not encoder.frozen:
            encoder.freeze()
        elif 0 < probe <= step and encoder.frozen:
            encoder.unfreeze()
            self.model = None
        if self.model is None:
            self.model = _in_several_processes(self.method) if world_size() > 1 else self.method
        set_learning_rates(self.optimiser, self.method, self.optim, self.schedule.factor(step))

    def make(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Make a step.

        Args:
            batch: this process's share.
            step: counted from 0.

        Returns:
            What is logged, still on the device.

        Raises:
            UsageError: the images are too small for the network.
        """
        self._begin(step)
        self.optimiser.zero_grad(set_to_none=True)
        parts = batch.split(self.optim.accumulate)
        logged: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.device))
        for part in parts:
            share = len(part.labels) / len(batch.labels)
            with self._gradient_sync(part is parts[-1]):
                with torch.autocast(self.device.type, self.precision.dtype, enabled=self.precision.name != "fp32"):
                    losses, figures = self._losses(part)
                total = torch.stack(list(losses.values())).sum()
                self.scaler.scale(share * total).backward()  # type: ignore[no-untyped-call]
            named = {"loss": total} | {f"loss/{name}": value for name, value in losses.items()} | figures
            for name, value in named.items():
                logged[name] += share * value.detach()
        if self.optim.clip is not None:
            self.scaler.unscale_(self.optimiser)
            trained = (p for group in self.optimiser.param_groups for p in group["params"])
            logged["gradient_norm"] += torch.nn.utils.clip_grad_norm_(trained, self.optim.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.method.after_step()
        return logged

    def _losses(self, part: Batch) -> tuple[Losses, Losses]:
        try:
            losses, figures = cast(nn.Module, self.model)(part)
        except ValueError as error:
            if "Expected more than 1" not in str(error):
                raise
            what = f"maps of single pixels can't be normalised: {one_line(error)}"
            raise UsageError(what, "use larger images (--set data.size=N, data.crop)") from None
        return losses, figures

    def _gradient_sync(self, last: bool) -> AbstractContextManager[Any]:
        """Average gradients over the processes once a step, with its last part."""
        return nullcontext() if last or world_size() == 1 else cast(DistributedDataParallel, self.model).no_sync()


def _in_several_processes(method: Method) -> DistributedDataParallel:
    """The method with its gradients averaged; what may get none in a step is looked for where there can be such."""
    stages = method.student.encoder.stages
    idle = isinstance(stages, TimmStages) and not feeds_last_map(stages)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.14 has a new name for broadcast_buffers, 2.9 has not
        return DistributedDataParallel(method, broadcast_buffers=False, find_unused_parameters=idle)
