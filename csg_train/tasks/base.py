"""The interface of a task: its images, its student, its training views, and how it is measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from csg.card import ClassSpec
from csg.datasets.dataset_scan import DatasetScan
from csg.errors import InputError
from csg.provenance import ClassificationEvaluation, SegmentationEvaluation
from csg_train.data.loading import Item
from csg_train.methods.base import Student
from csg_train.models.segmenter import without_padding
from csg_train.recipe import Recipe


class Images(Protocol):
    """Labelled images: a ClassificationDataset or a SegmentationDataset of csg.datasets."""

    @property
    def name(self) -> str: ...
    @property
    def class_spec(self) -> ClassSpec: ...
    @property
    def paths(self) -> tuple[Path, ...]: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def scan(self) -> DatasetScan: ...
    def __len__(self) -> int: ...
    def fingerprint(self) -> str: ...
    def subset(self, indices: np.ndarray, name: str, /) -> Self: ...


RecipeT = TypeVar("RecipeT", bound=Recipe)
StudentT = TypeVar("StudentT", bound=Student)
DatasetT = TypeVar("DatasetT", bound=Images)


class NotFiniteError(InputError):
    """A network answers with NaN or infinity."""


class Prediction(NamedTuple):
    """What a network predicts for B images."""

    logits: Tensor
    """Float (B, K) for K classes, or (B, K, H, W)."""
    embedding: Tensor | None = None
    """Float (B, C): the pooled layer4, if the network returns it."""
    mirrored: Tensor | None = None
    """Float (B, K), or (B, K, H, W), if asked for: class probabilities, the mean of those of the image and of its
    mirror image."""

    def check(self, name: str) -> None:
        """Raise NotFiniteError if a logit or an embedding is NaN or infinite.

        Args:
            name: of the images.
        """
        if not all(bool(tensor.isfinite().all()) for tensor in self if tensor is not None):
            raise NotFiniteError(
                f"the network gives NaN or infinity for images of {name}",
                "train with lower learning rates, or use a higher precision",
            )


Predict = Callable[[Tensor], Prediction]
"""From images, uint8 (B, H, W, 3), to predictions."""


@contextmanager
def predicting(student: Student, mirrored: bool = False) -> Iterator[Predict]:
    """The student's predictions, in eval mode; its mode is restored afterwards.

    Args:
        student: the network.
        mirrored: also predict from each image and its mirror image, in twice the time.
    """

    def predict(images: Tensor) -> Prediction:
        maps = student.encoder(images)
        logits = student.classify(maps)
        if logits.ndim == 4:
            logits = without_padding(logits, *images.shape[1:3])
        both = of_both(logits, student(images.flip(2))) if mirrored else None
        return Prediction(logits, student.embed(maps), both)

    training = student.training
    student.eval()
    try:
        yield predict
    finally:
        student.train(training)


def of_both(logits: Tensor, of_mirror_image: Tensor) -> Tensor:
    """Class probabilities from an image and its mirror image: the mean of both softmaxes.

    The published evaluation averages sigmoid outputs (docs/method.md section 6), which change with a constant that the
    cross-entropy leaves free (docs/evaluation.md).

    Args:
        logits: of images, (B, K) or (B, K, H, W).
        of_mirror_image: of their mirror images, in the same shape.
    """
    if logits.ndim == 4:
        of_mirror_image = of_mirror_image.flip(3)
    return (logits.softmax(1) + of_mirror_image.softmax(1)) / 2


@dataclass(frozen=True)
class Measurement:
    """A measurement of a network on N images with K classes."""

    evaluation: ClassificationEvaluation | SegmentationEvaluation
    """The scores, for the run's result and the model card."""
    confusion: np.ndarray
    """Int (K, K), rows true."""
    embeddings: np.ndarray
    """Float32 (N, C), pooled layer4; empty if the network returns no embeddings."""
    true: np.ndarray | None = None
    """Class indices (N,); None for segmentation, whose images have no single class."""
    predicted: np.ndarray | None = None
    """Class indices (N,); None for segmentation."""
    confidences: np.ndarray | None = None
    """Probability of the predicted class, float32 (N,); None for segmentation."""
    indices: np.ndarray | None = None
    """Which of the images these are, int (N,): without those that could not be read."""
    matrices: np.ndarray | None = None
    """Int64 (N, K, K + 1), the matrix of `csg.metrics.PixelConfusion` of each image; None for classification."""
    loss: float | None = None
    """Mean cross entropy of images, or of their labelled pixels; None if their classes are not the network's."""
    mirrored: ClassificationEvaluation | SegmentationEvaluation | None = None
    """The scores of image and mirror image together, if `predict` gives them."""
    nuclear_norm: float | None = None
    """A number to rank models by, for which no label is used (`csg.label_free`)."""

    @property
    def predictions(self) -> np.ndarray:
        """What is predicted for each image: `predicted` or `matrices`."""
        found = self.predicted if self.matrices is None else self.matrices
        assert found is not None
        return found


class Task(ABC, Generic[RecipeT, StudentT, DatasetT]):
    """What differs between the tasks; each method takes the recipe of a run."""

    embedded: ClassVar[str]
    """Name of the embedded dataset, and of the recipe that trains on it."""
    scores: ClassVar[dict[str, str]]
    """Two fields of an evaluation, and their names in a table; the first decides in tuning."""

    @abstractmethod
    def read_synthetic(self, recipe: RecipeT) -> DatasetT:
        """The training images."""

    @abstractmethod
    def read_real(self, recipe: RecipeT, classes: ClassSpec, sources: Sequence[str | Path]) -> DatasetT:
        """Images to measure a student on; some of its classes may have none.

        Args:
            recipe: of the run.
            classes: the classes of the student.
            sources: folders or list files.
        """

    @abstractmethod
    def student(self, recipe: RecipeT, classes: int, weights: dict[str, Tensor] | None) -> StudentT:
        """The network; `weights` is the ImageNet state dict of its backbone, None for random weights."""

    @abstractmethod
    def views(self, images: DatasetT, recipe: RecipeT, count: int, *, augmented: bool) -> Dataset[Item]:
        """`count` views of each image, with its label.

        Args:
            images: to train on.
            recipe: of the run.
            count: views of each image.
            augmented: as the recipe's `augment` says; otherwise images are resized and cropped alone. PASTA, which is
                off by default, is no part of that: it changes views either way.
        """

    @abstractmethod
    def measure(
        self, predict: Predict, classes: ClassSpec, images: DatasetT, recipe: RecipeT, device: torch.device
    ) -> Measurement:
        """Measure a network on images that it was not trained on.

        Args:
            predict: the network.
            classes: its classes.
            images: with labels.
            recipe: of the run.
            device: where `predict` expects images.

        Raises:
            InputError: an image cannot be read and the recipe does not skip it, no image can be read, or a prediction
                is NaN or infinite.
        """
