"""Metrics from true and predicted class indices, of images and of pixels; and how far confidences can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BINS = 15  # of the confidences, of equal width (Guo et al. 2017, section 4.2)


@dataclass(frozen=True)
class ClassificationScores:
    """Shares in 0..1. `per_class` is the accuracy within each true class, NaN for a class without images."""

    images: int
    accuracy: float
    mean_class_accuracy: float
    per_class: np.ndarray
    confusion: np.ndarray


def classification_scores(true: np.ndarray, predicted: np.ndarray, classes: int) -> ClassificationScores:
    """Overall accuracy, and the mean over the classes present of each class's accuracy (docs/method.md section 6).

    Args:
        true, predicted: int (N,), N >= 1, class indices below `classes`.
    """
    from sklearn.metrics import confusion_matrix

    return scores_from_confusion(confusion_matrix(true, predicted, labels=range(classes)))


def scores_from_confusion(confusion: np.ndarray) -> ClassificationScores:
    """The scores of a confusion matrix over images, int (K, K), rows true, one image or more."""
    of_class = confusion.sum(1)
    per_class = share_of(confusion.diagonal(), of_class)
    accuracy = confusion.trace() / confusion.sum()
    return ClassificationScores(
        int(confusion.sum()), float(accuracy), float(np.nanmean(per_class)), per_class, confusion
    )


class Reliability:
    """How often a classifier is right that is so sure of itself: its images in bins by confidence, filled one by one.

    images, right: int64 (BINS,), bin m holds confidences in (m / BINS, (m + 1) / BINS]. confidence: the bin's sum, in
    millionths, int64: whole numbers, so that the order of the images does not matter.
    """

    def __init__(self) -> None:
        self.images, self.right, self.confidence = (np.zeros(BINS, np.int64) for _ in range(3))

    def add(self, confidence: float, right: bool) -> None:
        """Count one image; its confidence, the probability of the predicted class, is taken to the sixth digit."""
        millionths = round(confidence * 1e6)
        place = max(0, -(-millionths * BINS // 1_000_000) - 1)
        self.images[place] += 1
        self.right[place] += right
        self.confidence[place] += millionths

    @property
    def accuracy(self) -> np.ndarray:
        """Share of right answers in each bin, NaN in an empty one."""
        return share_of(self.right, self.images)

    @property
    def mean_confidence(self) -> np.ndarray:
        """Mean confidence in each bin, NaN in an empty one."""
        return share_of(self.confidence / 1e6, self.images)

    @property
    def ece(self) -> float:
        """Expected calibration error: the sum over bins of n_m / n |accuracy_m - confidence_m| (ibid., eq. 3)."""
        return float(np.abs(self.right - self.confidence / 1e6).sum() / self.images.sum())


@dataclass(frozen=True)
class SegmentationScores:
    """Shares in 0..1. `per_class` is the IoU of each class, NaN for one that is in neither predictions nor labels."""

    miou: float
    pixel_accuracy: float
    frequency_weighted_iou: float
    per_class: np.ndarray
    confusion: np.ndarray


class PixelConfusion:
    """A confusion matrix over pixels, filled image by image.

    matrix: int64 (classes, classes + 1), rows true, columns predicted; the last column counts predictions that are none
    of the classes. Pixels whose true class is IGNORED do not count.
    """

    def __init__(self, classes: int):
        self.classes = classes
        self.matrix = np.zeros((classes, classes + 1), np.int64)

    def add(self, true: np.ndarray, predicted: np.ndarray) -> None:
        """Count the pixels of one image, uint8 arrays of one shape; a prediction beyond the classes is none of them."""
        self.matrix += self.of(true, predicted)

    def of(self, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """The matrix of one image alone."""
        counted = true < self.classes
        columns = np.minimum(predicted[counted], self.classes).astype(np.int64)
        cells = true[counted].astype(np.int64) * (self.classes + 1) + columns
        counts: np.ndarray = np.bincount(cells, minlength=self.matrix.size).reshape(self.matrix.shape)
        return counts

    def scores(self) -> SegmentationScores:
        """IoU of each class: of the pixels that are it or are taken for it, those that are both."""
        return segmentation_scores(self.matrix)


def unions(matrix: np.ndarray) -> np.ndarray:
    """Pixels that are a class or are taken for it, int64 (classes,)."""
    return np.asarray(matrix.sum(1) + matrix[:, : len(matrix)].sum(0) - matrix.diagonal())


def segmentation_scores(matrix: np.ndarray) -> SegmentationScores:
    """Scores of a matrix as `PixelConfusion` fills it; NaN where nothing was counted.

    mIoU is the mean over the classes that are in predictions or labels (docs/method.md section 7).
    """
    right, true, total = matrix.diagonal(), matrix.sum(1), matrix.sum()
    iou = share_of(right, unions(matrix))
    if not total:
        return SegmentationScores(float("nan"), float("nan"), float("nan"), iou, matrix)
    weighted = float(np.nansum(iou * true) / total)
    return SegmentationScores(float(np.nanmean(iou)), float(right.sum() / total), weighted, iou, matrix)


def share_of(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, float64 of their shape, NaN where there is nothing of the whole."""
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def finite(names: Sequence[str], shares: np.ndarray) -> dict[str, float | None]:
    """Shares by class name, None in place of NaN, which JSON has not."""
    return {name: None if np.isnan(share) else float(share) for name, share in zip(names, shares, strict=True)}
