"""l2: the encoder is held near its ImageNet weights (Kirkpatrick et al. 2017; docs/method.md section 8).

    L = L_task + mu * sum_k F_k (theta_k - theta_ImageNet,k)^2

F = 1 for plain l2. With `fisher`, F is the diagonal of the ImageNet classifier's Fisher information, elastic weight
consolidation (EWC). Without ImageNet's images it is taken over synthetic ones: labels drawn from the network's own
prediction, one image at a time, squared gradients averaged. F is scaled to mean 1, so that mu means the same in both,
and cut off at 100: its few largest values would make a gradient step overshoot.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from csg_train.distributed import mean_over_processes
from csg_train.methods.base import Batch, Method, MethodSettings, Student, task_loss
from csg_train.models.backbones import Encoder, Teacher

LARGEST = 100.0


class L2Settings(MethodSettings):
    """weight: mu; 0.1 pulls a weight about half-way back over a run of the pacs recipe. images: for the Fisher."""

    weight: Annotated[float, Field(ge=0)] = 0.1
    fisher: bool = False
    images: Annotated[int, Field(ge=1)] = 256


class EwcSettings(L2Settings):
    """The settings of l2, with Fisher weights by default."""

    fisher: bool = True


class Anchored(nn.Module):
    """Weights of an encoder at one moment, and how far it has moved since.

    importance: one factor for each weight.
    """

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.names = [name for name, p in encoder.named_parameters() if p.requires_grad]
        for name in self.names:
            weight = encoder.get_parameter(name).detach().clone()
            self.register_buffer(self._key("anchor", name), weight)
            self.register_buffer(self._key("importance", name), torch.ones_like(weight))

    @staticmethod
    def _key(kind: str, name: str) -> str:
        return f"{kind}_{name.replace('.', '_')}"

    def anchor(self, name: str) -> Tensor:
        return self.get_buffer(self._key("anchor", name))

    def importance(self, name: str) -> Tensor:
        return self.get_buffer(self._key("importance", name))

    def distance(self, encoder: Encoder) -> Tensor:
        """sum of importance * (theta - anchor)^2, with gradient to the encoder."""
        parts = [
            (self.importance(name) * (encoder.get_parameter(name) - self.anchor(name)).square()).sum()
            for name in self.names
        ]
        return torch.stack(parts).sum()


class L2(Method):
    """The task loss and the weighted distance from the ImageNet weights."""

    Settings = L2Settings
    needs_teacher = True

    def __init__(self, student: Student, teacher: Teacher | None, settings: L2Settings):
        super().__init__(student, teacher, settings)
        self.settings = settings
        self.anchored = Anchored(student.encoder)

    def prepare(self, batches: Iterable[Batch]) -> None:
        if self.settings.fisher:
            singles = (image for batch in batches for image in batch.split(len(batch.labels)))
            self._measure_fisher(itertools.islice(singles, self.settings.images))

    def _measure_fisher(self, images: Iterable[Batch]) -> None:
        encoder = self.student.encoder.eval()
        parameters = [encoder.get_parameter(name) for name in self.anchored.names]
        squares = [torch.zeros_like(p) for p in parameters]
        for batch in images:
            log_p = F.log_softmax(self.teacher.classify(encoder(batch.views[0])).float(), 1)
            label = torch.multinomial(log_p.detach().exp(), 1)
            gradients = torch.autograd.grad(-log_p.gather(1, label).sum(), parameters)
            for square, gradient in zip(squares, gradients, strict=True):
                square += gradient.square()
        encoder.train(self.training)
        squares = [mean_over_processes(square) for square in squares]
        mean = sum(float(s.sum()) for s in squares) / sum(s.numel() for s in squares)
        for name, square in zip(self.anchored.names, squares, strict=True):
            self.anchored.importance(name).copy_((square / mean).clamp_max(LARGEST))

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        task = task_loss(self.student(batch.views[0]), batch.labels)
        distance = self.anchored.distance(self.student.encoder)
        return {"task": task, "l2": self.settings.weight * distance}, {"distance_from_imagenet": distance}


class Ewc(L2):
    """l2 with Fisher weights: elastic weight consolidation."""

    Settings = EwcSettings
