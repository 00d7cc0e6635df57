"""The questions that a task answers; a module answers them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from csg.card import ClassSpec
from csg.provenance import ClassificationEvaluation, SegmentationEvaluation
from csg_train.data.loading import Item
from csg_train.models.classifier import Classifier
from csg_train.models.segmenter import Segmenter


class Images(Protocol):
    """Labelled images: a ClassificationDataset or a SegmentationDataset of csg.datasets."""

    @property
    def name(self) -> str: ...
    @property
    def class_spec(self) -> ClassSpec: ...
    @property
    def paths(self) -> tuple[Path, ...]: ...
    def __len__(self) -> int: ...
    def fingerprint(self) -> str: ...
    def subset(self, indices: np.ndarray, name: str) -> Any: ...


class Prediction(NamedTuple):
    """What a network predicts for B images."""

    logits: Tensor
    """Float (B, K) for K classes, or (B, K, H, W)."""
    embedding: Tensor | None = None
    """Float (B, C): the pooled layer4, if the network returns it."""


Predict = Callable[[Tensor], Prediction]
"""From images, uint8 (B, H, W, 3), to predictions."""


@contextmanager
def predicting(student: Classifier | Segmenter) -> Iterator[Predict]:
    """The student's predictions, in eval mode; its mode is restored afterwards."""

    def predict(images: Tensor) -> Prediction:
        maps = student.encoder(images)
        return Prediction(student.classify(maps), student.embed(maps))

    training = student.training
    student.eval()
    try:
        yield predict
    finally:
        student.train(training)


@dataclass(frozen=True)
class Measured:
    """A measurement of a network on a set of N images with K classes."""

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


class Task(Protocol):
    """A task, with functions that all take the recipe of a run of it.

    EMBEDDED: the name of its embedded set, and of the recipe that trains on it. SCORES: two figures of an evaluation
    and what they are called in a table; the first decides in tuning.
    """

    @property
    def EMBEDDED(self) -> str: ...
    @property
    def SCORES(self) -> dict[str, str]: ...

    def read_synthetic(self, recipe: Any) -> Any:
        """The training images."""

    def read_real(self, recipe: Any, classes: ClassSpec, sources: Sequence[str | Path], partly: bool) -> Any:
        """Images to measure a student of `classes` on; `partly`: some of the classes may have none."""

    def student(self, recipe: Any, classes: int, weights: dict[str, Tensor] | None) -> Any:
        """The network, with ImageNet's weights or random ones."""

    def views(self, images: Any, recipe: Any, count: int) -> Dataset[Item]:
        """`count` augmented views of each image, with its label."""

    def measure(self, predict: Predict, classes: ClassSpec, images: Any, recipe: Any, device: torch.device) -> Measured:
        """Measure a network on a set that training never saw."""
