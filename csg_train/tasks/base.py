"""The questions that a task answers; a module answers them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from csg.card import ClassificationEvaluation, ClassSpec, SegmentationEvaluation
from csg_train.data.loading import Item


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
    def take(self, places: np.ndarray, name: str) -> Any: ...


@dataclass(frozen=True)
class Measured:
    """What a student made of a set of images.

    confusion: int (K, K), rows true. embeddings: float32 (N, C), pooled layer4. true, predicted: class indices (N,),
    None for scenes, which have no single class.
    """

    evaluation: ClassificationEvaluation | SegmentationEvaluation
    confusion: np.ndarray
    embeddings: np.ndarray
    true: np.ndarray | None = None
    predicted: np.ndarray | None = None


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

    def measure(self, student: Any, classes: ClassSpec, images: Any, recipe: Any, device: torch.device) -> Measured:
        """The student, in fp32, on a set that training never saw."""
