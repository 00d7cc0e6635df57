"""si: Synaptic Intelligence (Zenke et al. 2017; docs/method.md section 8).

    L = L_task + c * sum_k Omega_k (theta_k - theta*_k)^2

Along the path of training omega_k += -g_k * (change of theta_k in the step), g the gradient of the loss without the
penalty. At the end of each epoch Omega_k += max(0, omega_k) / ((change of theta_k in the epoch)^2 + xi), and omega is
reset to 0. theta* are the ImageNet weights, since the comparison uses si to hold ImageNet; with `anchor: last` they are
the weights at the end of the last epoch, as in Zenke et al., whose tasks follow one another. Omega is 0 in the first
epoch, so it has no penalty.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from csg_train.methods.base import Batch, Losses, Method, Student, task_loss
from csg_train.methods.l2 import WeightAnchor
from csg_train.methods.settings import SiSettings
from csg_train.models.teacher import Teacher


class Si(Method):
    """The task loss and the penalty for moving important weights."""

    Settings = SiSettings
    trainings = ("full",)  # the path of each weight needs its gradient in every step

    settings: SiSettings

    def __init__(self, student: Student, teacher: Teacher | None, settings: SiSettings):
        super().__init__(student, teacher, settings)
        self.consolidated = WeightAnchor(student.encoder)
        for name in self.consolidated.names:
            self.consolidated.importance(name).zero_()
        parameters = self._weights()
        self.path = nn.ParameterList([nn.Parameter(torch.zeros_like(p), requires_grad=False) for p in parameters])
        self.before = nn.ParameterList([nn.Parameter(p.detach().clone(), requires_grad=False) for p in parameters])
        start = parameters if settings.anchor == "imagenet" else []  # of the epoch; with `last` it is the anchor
        self.start = nn.ParameterList([nn.Parameter(p.detach().clone(), requires_grad=False) for p in start])

    def _weights(self) -> list[nn.Parameter]:
        return [self.student.encoder.get_parameter(name) for name in self.consolidated.names]

    def losses(self, batch: Batch) -> tuple[Losses, Losses]:
        task = task_loss(self.student(batch.views[0]), batch.labels)
        penalty = self.consolidated.distance(self.student.encoder)
        return {"task": task, "si": self.settings.weight * penalty}, {}

    @torch.no_grad()
    def after_step(self) -> None:
        """Add the step to the path integral; a step that the gradient scaler skipped changes nothing."""
        for name, parameter, path, before in zip(
            self.consolidated.names, self._weights(), self.path, self.before, strict=True
        ):
            change = parameter - before
            pull = 2 * self.settings.weight * self.consolidated.importance(name)
            pull *= before - self.consolidated.anchor(name)
            gradient = cast(Tensor, parameter.grad) - pull
            path -= torch.where(change == 0, 0.0, gradient * change)
            before.copy_(parameter)

    @torch.no_grad()
    def after_epoch(self) -> None:
        """Consolidate: turn the path of the epoch into importance, and start a new path."""
        names = self.consolidated.names
        starts = list(self.start) or [self.consolidated.anchor(name) for name in names]
        for name, parameter, path, start in zip(names, self._weights(), self.path, starts, strict=True):
            change = parameter - start
            self.consolidated.importance(name).add_(path.clamp_min(0) / (change.square() + self.settings.xi))
            start.copy_(parameter)
            path.zero_()
