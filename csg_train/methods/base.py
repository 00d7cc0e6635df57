"""What a system of the comparison is: three answers, and the trainer knows nothing else about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from csg_train.models.backbones import Encoder
from csg_train.models.classifier import Classifier


@dataclass(frozen=True)
class Batch:
    """Images on the training device, and their classes.

    views: uint8 (V, B, H, W, 3), V independent augmentations of the same images; q-view first.
    labels: int64 (B,).
    """

    views: Tensor
    labels: Tensor


class MethodSettings(BaseModel):
    """Settings of one system; each system has its own class."""

    model_config = ConfigDict(extra="forbid")


class Method(nn.Module):
    """A system, built from the student, the teacher and its settings.

    Its state dict holds all that a resumed run needs, except the teacher, which is the ImageNet weights.

    Attributes:
        views: how many augmented views of each image it wants.
        needs_teacher: whether it compares the student with the frozen ImageNet encoder.
    """

    Settings: ClassVar[type[MethodSettings]] = MethodSettings
    views: ClassVar[int] = 1
    needs_teacher: ClassVar[bool] = False

    def __init__(self, student: Classifier, teacher: Encoder | None, settings: MethodSettings):
        super().__init__()
        self.student = student

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that train at the heads' learning rate; the student's encoder trains at the backbone's."""
        yield from self.student.head.parameters()

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses of a batch, weighted, to be summed ("task" among them), and figures that are only logged."""
        raise NotImplementedError

    def after_step(self) -> None:
        """What happens once after each optimiser step."""

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return self.losses(batch)


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy, mean over the batch."""
    return F.cross_entropy(logits.float(), labels)
