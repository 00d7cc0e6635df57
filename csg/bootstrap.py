"""The bootstrap over images (Efron 1979): scores of samples, drawn with replacement, of as many images as there are.

Shape letters: N images, K classes, B bootstrap samples, G groups of images that are counted alike.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
"""Number of bootstrap samples."""
BLOCK = 100
"""Bootstrap samples that are drawn at a time, to save memory."""

Groups = NDArray[np.int64]
Values = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Scores of samples, (B,) or (B, S), from how often each has the images of each group, (B, G)."""


def bootstrap(values: Values, groups: Groups, seed: int = 0) -> NDArray[np.float64]:
    """The scores of DRAWS samples.

    Args:
        values: computes scores from weights.
        groups: the group of each image, int (N,), from 0 without gaps; `np.arange(N)` if each is counted on its own.
        seed: seed of the draws.

    Returns:
        What `values` returns, (DRAWS,) or (DRAWS, S).
    """
    rng, images, count = np.random.default_rng(seed), len(groups), int(groups.max()) + 1

    def weights() -> NDArray[np.float64]:
        samples = (rng.integers(0, images, images) for _ in range(BLOCK))
        return np.stack([np.bincount(groups[sample], minlength=count) for sample in samples]).astype(np.float64)

    return np.concatenate([values(weights()) for _ in range(DRAWS // BLOCK)])


def mean_share(weights: np.ndarray, right: np.ndarray, whole: np.ndarray) -> NDArray[np.float64]:
    """The mean over the classes that occur of right / whole: mean class accuracy, or mIoU; with one class, accuracy.

    Args:
        weights: how often each group counts, float (B, G).
        right: correct images or pixels of each group by class, (G, K).
        whole: its images, or the pixels of the union of labels and predictions, (G, K).

    Returns:
        One score for each row of weights, (B,); NaN where no class occurs.
    """
    parts, wholes = weights @ right.astype(np.float64), weights @ whole.astype(np.float64)
    classes = (wholes > 0).sum(1)
    total = np.divide(parts, wholes, out=np.zeros(wholes.shape), where=wholes > 0).sum(1)
    scores: NDArray[np.float64] = np.divide(total, classes, out=np.full(len(total), np.nan), where=classes > 0)
    return scores
