"""Scores as functions of the confusion matrix, with their gradients.

A score that is a ratio of totals changes by `gradient[k, p]` when the matrix gains one item of true class k that is
predicted as p (the influence function of the score). Each score here is unchanged when the whole matrix is scaled, so
the gradient times the matrix is 0 (Euler's theorem on homogeneous functions).
Shape letters: K classes. Matrices are float64 (K, K), rows: true, columns: predicted.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from csg.estimates.candidates import Floats, Ints

ScoreFunction = Callable[[Floats], tuple[float, Floats]]
"""A score of a confusion matrix, and its gradient."""


def accuracy(matrix: Floats) -> tuple[float, Floats]:
    """Share of the items that are predicted correctly: accuracy, or pixel accuracy."""
    total, value = matrix.sum(), matrix.trace() / matrix.sum()
    return float(value), (np.eye(len(matrix)) - value) / total


def class_accuracy(matrix: Floats, classes: Ints) -> tuple[float, Floats]:
    """Mean, over some classes, of the share of the items of a class that are predicted correctly."""
    right, total, gradient = matrix.diagonal()[classes], matrix[classes].sum(1), np.zeros_like(matrix)
    gradient[classes] = -(right / total**2)[:, None]
    gradient[classes, classes] += 1 / total
    return float(np.mean(right / total)), gradient / len(classes)


def class_iou(matrix: Floats, classes: Ints) -> tuple[float, Floats]:
    """Mean, over some classes, of intersection over union."""
    right, gradient = matrix.diagonal()[classes], np.zeros_like(matrix)
    union = matrix[classes].sum(1) + matrix[:, classes].sum(0) - right
    gradient[classes] = -(right / union**2)[:, None]
    gradient[:, classes] -= right / union**2
    gradient[classes, classes] = (1 - right / union) / union
    return float(np.mean(right / union)), gradient / len(classes)


def mean_of(score: Callable[[Floats, Ints], tuple[float, Floats]], classes: Ints) -> ScoreFunction:
    """`class_accuracy` or `class_iou` as a score of some classes, given by their indices."""
    return lambda matrix: score(matrix, classes)
