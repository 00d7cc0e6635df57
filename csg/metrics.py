"""Classification metrics from true and predicted class indices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClassScores:
    """Shares in 0..1. `per_class` is the accuracy within each true class, NaN for a class without images."""

    images: int
    accuracy: float
    mean_class_accuracy: float
    per_class: np.ndarray
    confusion: np.ndarray


def class_scores(true: np.ndarray, predicted: np.ndarray, classes: int) -> ClassScores:
    """Overall accuracy, and the mean over the classes present of each class's accuracy (method.md section 6).

    Args:
        true, predicted: int (N,), N >= 1, class indices below `classes`.
    """
    from sklearn.metrics import confusion_matrix

    confusion = confusion_matrix(true, predicted, labels=range(classes))
    of_class = confusion.sum(1)
    per_class = np.divide(confusion.diagonal(), of_class, out=np.full(classes, np.nan), where=of_class > 0)
    accuracy = confusion.trace() / confusion.sum()
    return ClassScores(len(true), float(accuracy), float(np.nanmean(per_class)), per_class, confusion)
