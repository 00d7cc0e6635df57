"""Metrics from true and predicted class indices, of images and of pixels; and the calibration of confidences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BINS = 15
"""Bins of the confidences, of equal width (Guo et al. 2017, section 4.2)."""


@dataclass(frozen=True)
class ClassificationScores:
    """Scores of a classifier; all shares are in 0..1."""

    images: int
    """Number of images."""
    accuracy: float
    """Share of images whose class is predicted correctly."""
    mean_class_accuracy: float
    """Mean of `per_class` over the classes with images (docs/method.md section 6)."""
    per_class: np.ndarray
    """Accuracy within each true class, float64 (K,); NaN for a class without images."""
    confusion: np.ndarray
    """Number of images by class, int64 (K, K); rows: true, columns: predicted."""


def classification_scores(true: np.ndarray, predicted: np.ndarray, classes: int) -> ClassificationScores:
    """Scores from the class of each image.

    Args:
        true: int (N,), N >= 1, class indices below `classes`.
        predicted: the same for the predictions.
        classes: number of classes.

    Example:
        >>> classification_scores(np.array([0, 0, 1]), np.array([0, 1, 1]), classes=2).mean_class_accuracy
        0.75
    """
    from sklearn.metrics import confusion_matrix

    return scores_from_confusion(confusion_matrix(true, predicted, labels=range(classes)))


def score_name(score: str) -> str:
    """What people call a score.

    Example:
        >>> score_name("miou"), score_name("mean_class_accuracy")
        ('mIoU', 'mean class accuracy')
    """
    return "mIoU" if score == "miou" else score.replace("_", " ")


def scores_from_confusion(confusion: np.ndarray) -> ClassificationScores:
    """Scores from a confusion matrix over one image or more, int (K, K), rows: true."""
    per_class = safe_ratio(confusion.diagonal(), confusion.sum(1))
    return ClassificationScores(
        images=int(confusion.sum()),
        accuracy=float(confusion.trace() / confusion.sum()),
        mean_class_accuracy=float(np.nanmean(per_class)),
        per_class=per_class,
        confusion=confusion,
    )


class Reliability:
    """Calibration of a classifier: its images in bins by confidence, counted one by one.

    Attributes:
        images: int64 (BINS,), images in each bin; bin m holds confidences in (m / BINS, (m + 1) / BINS].
        correct: int64 (BINS,), those whose class is predicted correctly.
        confidence: int64 (BINS,), sum of the confidences in millionths: integers, so that the order of the images does
            not change the sum.
    """

    def __init__(self) -> None:
        self.images, self.correct, self.confidence = (np.zeros(BINS, np.int64) for _ in range(3))

    def add(self, confidence: float, correct: bool) -> None:
        """Count an image.

        Args:
            confidence: probability of the predicted class; rounded to six digits.
            correct: whether the predicted class is the true one.
        """
        millionths = round(confidence * 1e6)
        index = max(0, -(-millionths * BINS // 1_000_000) - 1)
        self.images[index] += 1
        self.correct[index] += correct
        self.confidence[index] += millionths

    @property
    def accuracy(self) -> np.ndarray:
        """Accuracy in each bin, float64 (BINS,); NaN for an empty bin."""
        return safe_ratio(self.correct, self.images)

    @property
    def mean_confidence(self) -> np.ndarray:
        """Mean confidence in each bin, float64 (BINS,); NaN for an empty bin."""
        return safe_ratio(self.confidence / 1e6, self.images)

    @property
    def ece(self) -> float:
        """Expected calibration error: sum over bins of n_m / n |accuracy_m - confidence_m| (Guo et al. 2017, eq. 3)."""
        return float(np.abs(self.correct - self.confidence / 1e6).sum() / self.images.sum())


@dataclass(frozen=True)
class SegmentationScores:
    """Scores of a segmenter; all shares are in 0..1."""

    miou: float
    """Mean of `per_class` over the classes that occur in predictions or labels (docs/method.md section 7)."""
    pixel_accuracy: float
    """Share of pixels whose class is predicted correctly."""
    frequency_weighted_iou: float
    """Mean of `per_class`, weighted by the pixels of each true class."""
    per_class: np.ndarray
    """IoU of each class, float64 (K,); NaN for a class that occurs in neither predictions nor labels."""
    confusion: np.ndarray
    """Number of pixels by class, int64 (K, K + 1), as `PixelConfusion` counts them."""


class PixelConfusion:
    """A confusion matrix over pixels, filled image by image.

    Attributes:
        matrix: int64 (K, K + 1); rows: true, columns: predicted; the last column counts predictions that are none of
            the K classes. Pixels whose true class is IGNORED (255) are not counted.
    """

    def __init__(self, classes: int):
        self.classes = classes
        self.matrix = np.zeros((classes, classes + 1), np.int64)

    def add(self, true: np.ndarray, predicted: np.ndarray) -> None:
        """Count the pixels of one image, given as class indices, uint8 (H, W) each."""
        self.matrix += self.matrix_of(true, predicted)

    def matrix_of(self, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """The matrix of one image alone, int64 (K, K + 1)."""
        counted = true < self.classes
        columns = np.minimum(predicted[counted], self.classes).astype(np.int64)
        cells = true[counted].astype(np.int64) * (self.classes + 1) + columns
        counts: np.ndarray = np.bincount(cells, minlength=self.matrix.size).reshape(self.matrix.shape)
        return counts

    def scores(self) -> SegmentationScores:
        """The scores of all images so far."""
        return segmentation_scores(self.matrix)


def union_pixels(matrix: np.ndarray) -> np.ndarray:
    """Pixels that are of a class or predicted as it, int64 (K,), from a matrix of `PixelConfusion`."""
    return np.asarray(matrix.sum(1) + matrix[:, : len(matrix)].sum(0) - matrix.diagonal())


def segmentation_scores(matrix: np.ndarray) -> SegmentationScores:
    """Scores from a matrix of `PixelConfusion`; NaN if no pixel was counted."""
    correct, true, total = matrix.diagonal(), matrix.sum(1), matrix.sum()
    iou = safe_ratio(correct, union_pixels(matrix))
    nan = float("nan")
    return SegmentationScores(
        miou=float(np.nanmean(iou)) if total else nan,
        pixel_accuracy=float(correct.sum() / total) if total else nan,
        frequency_weighted_iou=float(np.nansum(iou * true) / total) if total else nan,
        per_class=iou,
        confusion=matrix,
    )


def safe_ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, element by element, float64; NaN where `whole` is 0."""
    ratio: np.ndarray = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return ratio


def by_class_name(names: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    """Values by class name; NaN becomes None, since JSON has no NaN."""
    return {name: None if np.isnan(value) else float(value) for name, value in zip(names, values, strict=True)}
