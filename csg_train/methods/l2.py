"""l2 and ewc: the encoder stays near its ImageNet weights (Kirkpatrick et al. 2017; docs/method.md section 8).

    L = L_task + mu * sum_k F_k (theta_k - theta_ImageNet,k)^2

F = 1 for l2. For ewc, elastic weight consolidation, F is the diagonal of the ImageNet classifier's Fisher information.
ImageNet's images are not available, so it is measured on synthetic ones: labels drawn from the network's own
prediction (in segmentation: at each position of layer4), one image at a time, squared gradients averaged. F is scaled
to mean 1, so that mu means the same in both, and limited to 100: its few largest values would make a gradient step
overshoot.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from csg_train.distributed import mean_over_processes
from csg_train.methods.base import Batch, Losses, Method, Student, task_loss
from csg_train.methods.settings import EwcSettings, L2Settings
from csg_train.models.backbones import Encoder
from csg_train.models.lora import changing_weights, weight_of
from csg_train.models.teacher import Teacher

MAX_FISHER = 100.0


class WeightAnchor(nn.Module):
    """A copy of an encoder's weights, an importance for each of them, and how far the encoder has moved since."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.names = []
        for name, value in changing_weights(encoder).items():
            weight = value.detach().clone()
            self.names.append(name)
            self.register_buffer(self._key("anchor", name), weight)
            self.register_buffer(self._key("importance", name), torch.ones_like(weight))

    @staticmethod
    def _key(kind: str, name: str) -> str:
        return f"{kind}_{name.replace('.', '_')}"

    def anchor(self, name: str) -> Tensor:
        """The copy of a parameter."""
        return self.get_buffer(self._key("anchor", name))

    def importance(self, name: str) -> Tensor:
        """A factor for each weight of a parameter, 1 at first."""
        return self.get_buffer(self._key("importance", name))

    def distance(self, encoder: Encoder) -> Tensor:
        """sum of importance * (theta - anchor)^2, with gradients to the encoder."""
        parts = [
            (self.importance(name) * (weight_of(encoder, name) - self.anchor(name)).square()).sum()
            for name in self.names
        ]
        return torch.stack(parts).sum()


class L2(Method):
    """The task loss and the weighted distance from the ImageNet weights."""

    Settings = L2Settings
    trainings = ("full", "lp-ft", "lora")
    needs_teacher = True

    settings: L2Settings

    def __init__(self, student: Student, teacher: Teacher | None, settings: L2Settings):
        super().__init__(student, teacher, settings)
        self.anchored = WeightAnchor(student.encoder)
        if settings.fisher:
            self.teacher.check_classifier()

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Measure the Fisher information."""
        if self.settings.fisher:
            singles = (image for batch in batches for image in batch.split(len(batch.labels)))
            self._measure_fisher(itertools.islice(singles, self.settings.images))

    @parametrize.cached()  # type: ignore[untyped-decorator]
    def _measure_fisher(self, images: Iterable[Batch]) -> None:
        encoder = self.student.encoder.eval()
        parameters = [weight_of(encoder, name) for name in self.anchored.names]
        squares = [torch.zeros_like(p) for p in parameters]
        for batch in images:
            logits = self.teacher.classify(encoder(batch.views[0]), pooled=not self.teacher.dilated)
            log_p = F.log_softmax(logits.float(), 1)
            label = torch.multinomial(log_p.detach().exp(), 1)
            gradients = torch.autograd.grad(-log_p.gather(1, label).sum(), parameters)
            for square, gradient in zip(squares, gradients, strict=True):
                square += gradient.square()
        encoder.train(self.training)
        squares = [mean_over_processes(square) for square in squares]
        mean = sum(float(s.sum()) for s in squares) / sum(s.numel() for s in squares)
        for name, square in zip(self.anchored.names, squares, strict=True):
            self.anchored.importance(name).copy_((square / mean).clamp_max(MAX_FISHER))

    def losses(self, batch: Batch) -> tuple[Losses, Losses]:
        task = task_loss(self.student(batch.views[0]), batch.labels)
        distance = self.anchored.distance(self.student.encoder)
        return {"task": task, "l2": self.settings.weight * distance}, {"distance_from_imagenet": distance}


class Ewc(L2):
    """l2 with Fisher weights: elastic weight consolidation."""

    Settings = EwcSettings
