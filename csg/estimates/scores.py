"""Scores as functions of the confusion matrix, with their derivatives.

A score that is a ratio of totals changes by `gradient[k, p]` when the matrix gains one item of true class k that is
predicted as p (the influence function of the score). Each score here is unchanged when the whole matrix is scaled, so
the gradient times the matrix is 0 (Euler's theorem on homogeneous functions). `curvature[k, p]` is the second
derivative by the same cell, with the number of items that are predicted as p left as it is: that number is known.
Shape letters: K classes. Matrices are float64 (K, K), rows: true, columns: predicted.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from csg.estimates.candidates import Floats, Ints

Score = tuple[float, Floats, Floats]
"""A score, its gradient, and its curvature."""
ScoreFunction = Callable[[Floats], Score]
"""A score of a confusion matrix."""


def accuracy(matrix: Floats) -> Score:
    """Share of the items that are predicted correctly: accuracy, or pixel accuracy."""
    total, value = matrix.sum(), matrix.trace() / matrix.sum()
    return float(value), (np.eye(len(matrix)) - value) / total, np.zeros_like(matrix)


def class_accuracy(matrix: Floats, classes: Ints) -> Score:
    """Mean, over some classes, of the share of the items of a class that are predicted correctly."""
    right, total = matrix.diagonal()[classes], matrix[classes].sum(1)
    gradient, curvature = np.zeros_like(matrix), np.zeros_like(matrix)
    gradient[classes] = -(right / total**2)[:, None]
    gradient[classes, classes] += 1 / total
    curvature[classes] = (2 * right / total**3)[:, None]
    curvature[classes, classes] -= 2 / total**2
    return float(np.mean(right / total)), gradient / len(classes), curvature / len(classes)


def class_iou(matrix: Floats, classes: Ints) -> Score:
    """Mean, over some classes, of intersection over union."""
    right, gradient, curvature = matrix.diagonal()[classes], np.zeros_like(matrix), np.zeros_like(matrix)
    union = matrix[classes].sum(1) + matrix[:, classes].sum(0) - right
    gradient[classes] = -(right / union**2)[:, None]
    gradient[:, classes] -= right / union**2
    gradient[classes, classes] = (1 - right / union) / union
    curvature[classes] = (2 * right / union**3)[:, None]
    curvature[classes, classes] = 0
    return float(np.mean(right / union)), gradient / len(classes), curvature / len(classes)


def mean_of(score: Callable[[Floats, Ints], Score], classes: Ints) -> ScoreFunction:
    """`class_accuracy` or `class_iou` as a score of some classes, given by their indices."""
    return lambda matrix: score(matrix, classes)
