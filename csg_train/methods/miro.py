"""miro: mutual information regularization with the pretrained network (Cha et al. 2022; docs/method.md section 11).

    L = L_task + lambda * sum over stages of mean of 1/2 [log s^2_c + (f_o - mu(f))^2 / s^2_c]

f and f_o are the maps of student and teacher for the same view. A Gaussian with mean mu(f) and a variance s^2_c for
each channel models f_o given f; its log-likelihood bounds the mutual information of both from below. mu is the
identity, s^2_c = softplus(b_c) + 1e-5, as published. The mean is over images, channels and positions, so that a stage
does not weigh more because it is larger; the published formula sums, the published code takes the mean, and the
published weights are those of the mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csg_train.methods.base import Batch, Losses, Method, Student, task_loss
from csg_train.methods.settings import MiroSettings
from csg_train.models.teacher import Teacher

FIRST_VARIANCE = 0.1
SMALLEST_VARIANCE = 1e-5


class MapModel(nn.Module):
    """The Gaussian that models a stage's map in the teacher, given the one in the student.

    Args:
        channels: of the map.
        linear: let the mean be a linear map of the student's channels, the identity at first; otherwise it stays that.
    """

    def __init__(self, channels: int, linear: bool):
        super().__init__()
        self.mean: nn.Module = nn.Identity()
        if linear:
            self.mean = nn.Conv2d(channels, channels, 1)
            nn.init.dirac_(self.mean.weight)
            nn.init.zeros_(self.mean.bias)  # type: ignore[arg-type]
        first = math.log(math.expm1(FIRST_VARIANCE - SMALLEST_VARIANCE))
        self.bias = nn.Parameter(torch.full((channels,), first))

    def variance(self) -> Tensor:
        """The variance of each channel, float32 (C,)."""
        return F.softplus(self.bias) + SMALLEST_VARIANCE

    def forward(self, map_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
        """Negative log-likelihood of the teacher's map, without its constant: mean over all elements."""
        variance = self.variance()[:, None, None]
        squares = (target_BCHW.float() - self.mean(map_BCHW).float()).square()
        terms: Tensor = variance.log() + squares / variance
        return terms.mean() / 2


class Miro(Method):
    """The task loss and the negative log-likelihood of the teacher's maps, given the student's."""

    Settings = MiroSettings
    needs_teacher = True
    trainings = ("full", "lp-ft", "lora")

    settings: MiroSettings

    def __init__(self, student: Student, teacher: Teacher | None, settings: MiroSettings):
        super().__init__(student, teacher, settings)
        channels: Mapping[str, int] = student.encoder.channels
        linear = settings.mean == "linear"
        self.models = nn.ModuleDict({stage: MapModel(count, linear) for stage, count in channels.items()})

    def head_parameters(self) -> Iterator[nn.Parameter]:
        yield from super().head_parameters()
        yield from self.models.parameters()

    def losses(self, batch: Batch) -> tuple[Losses, Losses]:
        (view,) = batch.views
        maps = self.student.encoder(view)
        with torch.no_grad():
            targets = self.teacher(view)
        losses = {"task": task_loss(self.student.classify(maps), batch.labels)}
        for stage, model in self.models.items():
            losses[f"information/{stage}"] = self.settings.weight * model(maps[stage], targets[stage])
        return losses, {}
