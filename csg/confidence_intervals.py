"""How far a measurement on so many images can be off: 95 % confidence intervals of the scores, each (low, high)."""

from __future__ import annotations

import numpy as np

from csg.metrics import share_of, unions

Z = 1.959964  # 97.5 % point of the normal distribution
DRAWS = 1000
PERCENTILES = (2.5, 97.5)


def wilson(right: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's score interval of a share of independent images (Wilson 1927; Brown, Cai and DasGupta 2001).

    Args:
        right, images: int arrays of one shape; NaN comes back where there are no images.
    """
    n = np.where(images > 0, images, np.nan)
    share, spread = right / n, Z**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * np.sqrt(share * (1 - share) / n + spread / (4 * n))
    return np.clip(middle - half, 0, share), np.clip(middle + half, share, 1)


def mean_class_accuracy_interval(confusion: np.ndarray) -> tuple[float, float]:
    """Bootstrap within the classes: images drawn again, as many of each class as there are (Efron 1979).

    Drawing n images of a class again and counting the right ones is one binomial draw, so the images are not needed.
    """
    images = confusion.sum(1)
    present = images > 0
    draws = np.random.default_rng(0).binomial(
        images[present], confusion.diagonal()[present] / images[present], (DRAWS, present.sum())
    )
    low, high = np.percentile((draws / images[present]).mean(1), PERCENTILES)
    return float(low), float(high)


class SegmentationBootstrap:
    """Bootstrap over scenes, one at a time: in each draw a scene counts a Poisson(1) number of times (Hanley and
    MacGibbon 2006), fixed by its place, so that memory does not grow and their order does not matter.
    """

    def __init__(self, classes: int):
        self.scenes = 0
        self.right, self.union = np.zeros((DRAWS, classes), np.int64), np.zeros((DRAWS, classes), np.int64)

    def add(self, place: int, matrix: np.ndarray) -> None:
        """Count a scene's confusion matrix, as `csg.metrics.PixelConfusion` makes it."""
        times = np.random.default_rng(place).poisson(1, DRAWS)[:, None]
        self.scenes += 1
        self.right += times * matrix.diagonal()
        self.union += times * unions(matrix)

    def miou(self) -> tuple[float, float] | None:
        """The interval of the mIoU; None for fewer than two scenes, which say nothing of others."""
        if self.scenes < 2:
            return None
        drawn = self.union.any(1)
        iou = share_of(self.right[drawn], self.union[drawn])
        low, high = np.percentile(np.nanmean(iou, 1), PERCENTILES)
        return float(low), float(high)
