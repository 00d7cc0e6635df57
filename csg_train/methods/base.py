"""What a method is: it computes the losses of a batch and answers a few questions of the trainer.

Precision, gradient scaling, accumulation, learning-rate schedule, processes, checkpoints and logging belong to the
trainer. docs/how-to/method.md explains how to add a method.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from csg.datasets.label_sets import IGNORED
from csg_train.methods.settings import MethodSettings
from csg_train.models.classifier import Classifier
from csg_train.models.segmenter import Segmenter, without_padding
from csg_train.models.teacher import Teacher

Student = Classifier | Segmenter
Losses = dict[str, Tensor]
"""Scalars by name."""


@dataclass(frozen=True)
class Batch:
    """Images and their labels on the training device."""

    views: Tensor
    """uint8 (V, B, H, W, 3): V independent augmentations of the same images; the q-view is the first."""
    labels: Tensor
    """Class of each image, int64 (B,), or of each pixel, uint8 (B, H, W)."""
    indices: tuple[int, ...] | None = None
    """Which of the training images these are, if each is the same in every pass and what networks give for it may be
    kept; otherwise None."""
    embedded: bool = False
    """Whether `views` holds, in place of images, a frozen encoder's embeddings of them, float (1, B, C)."""

    def split(self, parts: int) -> list[Batch]:
        """The same images in `parts` smaller batches of nearly equal size, without empty ones."""
        chunks = zip(self.views.tensor_split(parts, 1), self.labels.tensor_split(parts), strict=True)
        batches, start = list[Batch](), 0
        for views, labels in chunks:
            end = start + len(labels)
            indices = self.indices and self.indices[start:end]
            batches.append(Batch(views, labels, indices, self.embedded))
            start = end
        return [batch for batch in batches if len(batch.labels)]


class Method(nn.Module):
    """A method: student, teacher and settings, and what it computes with them.

    The state dict holds everything that a resumed run needs, except the teacher, which is the ImageNet weights.

    Args:
        student: the network to train.
        teacher: the frozen ImageNet network, for methods that need one.
        settings: an instance of the class's Settings.
    """

    Settings: ClassVar[type[MethodSettings]] = MethodSettings
    """The class of its settings."""
    views: ClassVar[int] = 1
    """How many augmented views of each image it uses."""
    needs_teacher: ClassVar[bool] = False
    """Whether it compares the student with the frozen ImageNet network."""
    backbone_variant: ClassVar[str] = ""
    """Suffix of the backbone's name, for methods that change the backbone."""
    trainings: ClassVar[tuple[str, ...]] = ("full", "frozen", "lp-ft", "lora")
    """The values of `model.training` that it makes sense with; without `frozen` if its losses are for the encoder."""
    takes_features: ClassVar[bool] = False
    """Whether its batches may be `embedded` when the encoder of a classifier is frozen: it uses `logits` alone."""
    tuned_setting: ClassVar[str | None] = "weight"
    """The setting that a comparison tunes: the weight of the method's loss. None: it tunes the learning rates."""

    settings: MethodSettings

    def __init__(self, student: Student, teacher: Teacher | None, settings: MethodSettings):
        super().__init__()
        self.student = student
        self.settings = settings
        self._teacher = [teacher]  # in a list: not a submodule, so neither trained nor saved

    @property
    def augmented(self) -> bool:
        """Whether its training images are augmented; otherwise they are resized and cropped alone."""
        return True

    @property
    def teacher(self) -> Teacher:
        """The frozen ImageNet network of a method that needs it."""
        (teacher,) = self._teacher
        assert teacher is not None
        return teacher

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that train at the learning rate of the heads; those of the encoder train at the backbone's."""
        yield from self.student.head.parameters()

    def learning_rate(self, group: str, backbone: float, heads: float) -> float:
        """Learning rate of a group of parameters.

        Args:
            group: a stage of the encoder, or `heads`.
            backbone, heads: the recipe's two learning rates.
        """
        return heads if group == "heads" else backbone

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Measure something on the untrained student, once, before the first step; `batches` has no end."""

    def logits(self, batch: Batch) -> Tensor:
        """The student's logits of the first view."""
        found: Tensor = self.student.head(batch.views[0]) if batch.embedded else self.student(batch.views[0])
        return found

    def losses(self, batch: Batch) -> tuple[Losses, Losses]:
        """The losses of a batch.

        Returns:
            Weighted losses, which the trainer adds up (the task loss is "task"), and figures that are only logged.
        """
        raise NotImplementedError

    def after_step(self) -> None:
        """Called after each optimiser step; the gradients of the step are still there."""

    def after_epoch(self) -> None:
        """Called after each pass over the images."""

    def forward(self, batch: Batch) -> tuple[Losses, Losses]:
        return self.losses(batch)


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy: mean over the images, or over the pixels that are not ignored (0 if all are).

    Args:
        logits: (B, classes), or (B, classes, H, W) or of the padded images (`Segmenter.classify`).
        labels: int64 (B,) or uint8 (B, H, W).
    """
    if labels.ndim == 1:
        return F.cross_entropy(logits.float(), labels)
    logits = without_padding(logits, *labels.shape[1:])
    counted = (labels != IGNORED).sum().clamp_min(1)
    return F.cross_entropy(logits.float(), labels.long(), ignore_index=IGNORED, reduction="sum") / counted
