"""95 % confidence intervals of the scores: how far a measurement on a limited number of images may be off."""

from __future__ import annotations

import numpy as np

from csg.metrics import safe_ratio, union_pixels

Z = 1.959964
"""97.5 % point of the normal distribution."""
DRAWS = 1000
"""Number of bootstrap samples."""
PERCENTILES = (2.5, 97.5)
"""Ends of the interval among the bootstrap samples."""


def wilson(correct: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's score interval of a share of independent images (Wilson 1927; Brown, Cai and DasGupta 2001).

    Args:
        correct: int array, images predicted correctly.
        images: int array of the same shape, all images.

    Returns:
        Lower and upper ends, float64 arrays of that shape; NaN where there are no images.
    """
    n = np.where(images > 0, images, np.nan)
    share, spread = correct / n, Z**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * np.sqrt(share * (1 - share) / n + spread / (4 * n))
    return np.clip(middle - half, 0, share), np.clip(middle + half, share, 1)


def mean_class_accuracy_interval(confusion: np.ndarray) -> tuple[float, float]:
    """Stratified bootstrap of the mean class accuracy: each class is resampled on its own (Efron 1979).

    Resampling the n images of a class and counting the correct ones is one binomial draw, so the confusion matrix is
    enough.

    Args:
        confusion: int (K, K), rows: true.

    Returns:
        Lower and upper end.
    """
    images = confusion.sum(1)
    present = images > 0
    draws = np.random.default_rng(0).binomial(
        images[present], confusion.diagonal()[present] / images[present], (DRAWS, present.sum())
    )
    low, high = np.percentile((draws / images[present]).mean(1), PERCENTILES)
    return float(low), float(high)


class SegmentationBootstrap:
    """Bootstrap of the mIoU over images, which are added one by one.

    In each bootstrap sample an image counts a Poisson(1) number of times (Hanley and MacGibbon 2006). The number is
    fixed by the image's index: memory does not grow with the images, and their order does not matter.
    """

    def __init__(self, classes: int):
        self.images = 0
        self.correct, self.union = np.zeros((DRAWS, classes), np.int64), np.zeros((DRAWS, classes), np.int64)

    def add(self, index: int, matrix: np.ndarray) -> None:
        """Count an image.

        Args:
            index: the image's index in the dataset.
            matrix: its matrix, as `csg.metrics.PixelConfusion.matrix_of` returns it.
        """
        times = np.random.default_rng(index).poisson(1, DRAWS)[:, None]
        self.images += bool(matrix.any())
        self.correct += times * matrix.diagonal()
        self.union += times * union_pixels(matrix)

    def miou(self) -> tuple[float, float] | None:
        """The interval of the mIoU; None for fewer than two images with counted pixels, which allow no estimate."""
        if self.images < 2:
            return None
        drawn = self.union.any(1)
        iou = safe_ratio(self.correct[drawn], self.union[drawn])
        low, high = np.percentile(np.nanmean(iou, 1), PERCENTILES)
        return float(low), float(high)
