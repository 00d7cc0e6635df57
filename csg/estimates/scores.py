"""Scores as functions of the confusion matrix, with their gradients.

A score that is a ratio of totals changes by `gradient[k, p]` when the matrix gains one item of true class k that is
predicted as p (the influence function of the score). Each score here is unchanged when the whole matrix is scaled, so
the gradient times the matrix is 0 (Euler's theorem on homogeneous functions).
Shape letters: K classes. Matrices are float64 (K, K), rows: true, columns: predicted.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from csg.estimates.candidates import Floats

ScoreFunction = Callable[[Floats], tuple[float, Floats]]
"""A score of a confusion matrix, and its gradient."""


def accuracy(matrix: Floats) -> tuple[float, Floats]:
    """Share of the items that are predicted correctly: accuracy, or pixel accuracy."""
    total, value = matrix.sum(), matrix.trace() / matrix.sum()
    return float(value), (np.eye(len(matrix)) - value) / total


def class_accuracy(matrix: Floats, name: int) -> tuple[float, Floats]:
    """Share of the items of a class that are predicted correctly."""
    total, gradient = matrix[name].sum(), np.zeros_like(matrix)
    value = matrix[name, name] / total
    gradient[name] = -value / total
    gradient[name, name] += 1 / total
    return float(value), gradient


def class_iou(matrix: Floats, name: int) -> tuple[float, Floats]:
    """Intersection over union of a class."""
    gradient = np.zeros_like(matrix)
    union = matrix[name].sum() + matrix[:, name].sum() - matrix[name, name]
    value = matrix[name, name] / union
    gradient[name], gradient[:, name] = -value / union, -value / union
    gradient[name, name] = (1 - value) / union
    return float(value), gradient


def mean_of(score: Callable[[Floats, int], tuple[float, Floats]], classes: np.ndarray) -> ScoreFunction:
    """The mean of a score over some classes, given by their indices."""

    def mean(matrix: Floats) -> tuple[float, Floats]:
        values, gradients = zip(*(score(matrix, int(name)) for name in classes), strict=True)
        return float(np.mean(values)), np.asarray(np.mean(gradients, 0))

    return mean
