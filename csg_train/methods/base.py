"""What a system of the comparison is: a few answers, and the trainer knows nothing else about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from csg.datasets.label_sets import IGNORED
from csg_train.models.backbones import Teacher
from csg_train.models.classifier import Classifier
from csg_train.models.segmenter import Segmenter

Student = Classifier | Segmenter


@dataclass(frozen=True)
class Batch:
    """Images on the training device, and their classes.

    views: uint8 (V, B, H, W, 3), V independent augmentations of the same images; q-view first.
    labels: int64 (B,), or uint8 (B, H, W), the class of each pixel.
    """

    views: Tensor
    labels: Tensor

    def split(self, parts: int) -> list[Batch]:
        """The same images in `parts` smaller batches, as equal as can be, none empty."""
        chunks = zip(self.views.tensor_split(parts, 1), self.labels.tensor_split(parts), strict=True)
        return [Batch(views, labels) for views, labels in chunks if len(labels)]


class MethodSettings(BaseModel):
    """Settings of one system; each system has its own class."""

    model_config = ConfigDict(extra="forbid")

    def paths(self) -> dict[str, Path]:
        """The settings that name a file or folder."""
        return {name: value for name, value in self if isinstance(value, Path)}


class Method(nn.Module):
    """A system, built from the student, the teacher and its settings.

    Its state dict holds all that a resumed run needs, except the teacher, which is the ImageNet weights.

    Attributes:
        views: how many augmented views of each image it wants.
        needs_teacher: whether it compares the student with the frozen ImageNet network.
        backbone_variant: the change of backbone that the system is, by the suffix of the backbone's name.
        tuned_setting: the setting that a comparison tunes, the weight of the method's loss; None: it tunes the
            learning rates.
        for_scenes: defaults of its settings in segmentation, where they are others.
    """

    Settings: ClassVar[type[MethodSettings]] = MethodSettings
    views: ClassVar[int] = 1
    needs_teacher: ClassVar[bool] = False
    backbone_variant: ClassVar[str] = ""
    tuned_setting: ClassVar[str | None] = "weight"
    for_scenes: ClassVar[dict[str, Any]] = {}

    @classmethod
    def defaults(cls, task: str) -> dict[str, Any]:
        """Settings whose default is the task's own."""
        return dict(cls.for_scenes) if task == "seg" else {}

    def __init__(self, student: Student, teacher: Teacher | None, settings: MethodSettings):
        super().__init__()
        self.student = student
        self._teacher = [teacher]  # in a list: no submodule, so neither trained nor saved

    @property
    def teacher(self) -> Teacher:
        """The frozen ImageNet network, of methods that need it."""
        (teacher,) = self._teacher
        assert teacher is not None
        return teacher

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that train at the heads' learning rate; the student's encoder trains at the backbone's."""
        yield from self.student.head.parameters()

    def learning_rate(self, group: str, backbone: float, heads: float) -> float:
        """Learning rate of a group of parameters (a stage, or `heads`), given the recipe's two."""
        return heads if group == "heads" else backbone

    def prepare(self, batches: Iterable[Batch]) -> None:
        """What is measured once, on the untouched student, before the first step; `batches` are drawn on demand."""

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses of a batch, weighted, to be summed ("task" among them), and figures that are only logged."""
        raise NotImplementedError

    def after_step(self) -> None:
        """What happens once after each optimiser step; the step's gradients are still there."""

    def after_epoch(self) -> None:
        """What happens once after each pass over the images."""

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return self.losses(batch)


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy, mean over the images, or over the pixels that are not ignored; 0 where all are.

    Args:
        logits, labels: (B, classes) and (B,), or (B, classes, H, W) and (B, H, W).
    """
    if labels.ndim == 1:
        return F.cross_entropy(logits.float(), labels)
    counted = (labels != IGNORED).sum().clamp_min(1)
    return F.cross_entropy(logits.float(), labels.long(), ignore_index=IGNORED, reduction="sum") / counted
