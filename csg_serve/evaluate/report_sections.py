"""What the report shows of a classifier and of a segmenter; the templates lay it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from csg.confidence_intervals import mean_class_accuracy_interval, wilson
from csg.metrics import BINS, ClassificationScores, Reliability, SegmentationScores, safe_ratio
from csg_serve.client.stream import REQUEST_IMAGES
from csg_serve.evaluate import charts
from csg_serve.evaluate.classification import ClassificationReport, accuracy_interval
from csg_serve.evaluate.confusion_matrix import ConfusionMatrix, confusion_matrix
from csg_serve.evaluate.segmentation import SegmentationReport

THUMBNAIL_SIDE = 160
EXAMPLE_SIDE = 1500
"""Longest side of image, prediction and labels side by side."""
MIRRORED = ", with mirror image"
LOWEST_IMAGES = 10
"""Images with the lowest mIoU that are listed."""


@dataclass(frozen=True)
class Figure:
    """A headline figure."""

    name: str
    """What it is."""
    value: str
    """The figure."""
    note: str
    """Its interval, or what it is computed from."""


@dataclass(frozen=True)
class ClassRow:
    """One class in the table of classes."""

    name: str
    """Name of the class."""
    share: float
    """Accuracy or IoU; NaN if the class does not occur."""
    size: float
    """Number of images, or share of the pixels."""
    low: float = 0.0
    """Lower bound of the 95 % interval of the accuracy."""
    high: float = 0.0
    """Upper bound of the 95 % interval of the accuracy."""
    precision: float = float("nan")
    """Precision of a classifier."""
    colour: str = ""
    """Colour of a segmenter's class."""

    @property
    def occurs(self) -> bool:
        """Whether there is a share to show."""
        return not np.isnan(self.share)


@dataclass(frozen=True)
class ErrorExample:
    """A wrong answer, with its picture."""

    picture: charts.Thumbnail
    """The image."""
    path: str
    """Its file."""
    true: str
    """True class."""
    predicted: str
    """Predicted class."""
    confidence: float
    """Probability of the predicted class."""


@dataclass(frozen=True)
class ReliabilityRow:
    """One bin of the reliability diagram."""

    name: str
    """Range of the confidence."""
    images: int
    """Number of images."""
    confidence: float
    """Their mean confidence."""
    accuracy: float
    """Their accuracy."""


@dataclass(frozen=True)
class Calibration:
    """The reliability diagram and its numbers."""

    upper: list[charts.Bar]
    """Accuracy by confidence."""
    lower: list[charts.Bar]
    """Number of images by confidence."""
    ece: float
    """Expected calibration error."""
    confidence: float
    """Mean confidence over all images."""
    rows: list[ReliabilityRow]
    """The bins that have images."""


@dataclass(frozen=True)
class ClassificationSections:
    """Sections of a classifier's report."""

    headline: list[Figure]
    """Headline figures."""
    rows: list[ClassRow]
    """Accuracy of each class."""
    matrix: ConfusionMatrix
    """Confusion matrix."""
    errors: list[ErrorExample]
    """The wrong answers with the highest confidence."""
    wrong: int
    """Number of wrong answers."""
    calibration: Calibration
    """Reliability diagram."""
    request: str = f"up to {REQUEST_IMAGES} images each"
    """What a request holds."""


@dataclass(frozen=True)
class SegmentationExample:
    """An image with prediction and labels."""

    name: str
    """best, median or worst."""
    picture: charts.Thumbnail
    """Image, prediction and labels side by side."""
    path: str
    """File of the image."""
    miou: float
    """mIoU of the image."""


@dataclass(frozen=True)
class SegmentationSections:
    """Sections of a segmenter's report."""

    headline: list[Figure]
    """Headline figures."""
    rows: list[ClassRow]
    """IoU of each class."""
    matrix: ConfusionMatrix
    """Confusion matrix."""
    examples: list[SegmentationExample]
    """The best, the median and the worst image."""
    lowest: list[tuple[str, float]]
    """File and mIoU of the images with the lowest mIoU, lowest first."""
    request: str = "one image each, or its tiles"
    """What a request holds."""


def percent(share: float | None, digits: int = 1) -> str:
    """A share as a percentage; a dash for None and NaN."""
    return "–" if share is None or np.isnan(share) else f"{100 * share:.{digits}f} %"


def interval(bounds: tuple[float, float]) -> str:
    """A confidence interval as text."""
    return f"95 % interval {100 * bounds[0]:.1f} – {100 * bounds[1]:.1f}"


def classification_sections(report: ClassificationReport, images: Sequence[Path]) -> ClassificationSections:
    """The sections of a classifier's report; `images` are the files of the data set."""
    scores, confusion = report.scores, report.scores.confusion
    correct, sizes = confusion.diagonal(), confusion.sum(1)
    lows, highs = wilson(correct, sizes)
    columns = (scores.per_class, sizes, lows, highs, safe_ratio(correct, confusion.sum(0)))
    rows = [
        ClassRow(name, share, int(size), low=low, high=high, precision=precision)
        for name, share, size, low, high, precision in zip(report.classes, *columns, strict=True)
    ]
    errors = [
        ErrorExample(
            charts.thumbnail(images[error.index], THUMBNAIL_SIDE),
            path=str(images[error.index]),
            true=report.classes[error.true],
            predicted=report.classes[error.predicted],
            confidence=error.confidence,
        )
        for error in report.errors
    ]
    calibration = _calibration(report.reliability)
    mean_confidence = f"mean confidence {percent(calibration.confidence)}"
    headline = [
        *_accuracy_figures(scores, ""),
        *(_accuracy_figures(report.mirrored, MIRRORED) if report.mirrored else ()),
        Figure("calibration error", percent(calibration.ece, 2), mean_confidence),
    ]
    return ClassificationSections(
        headline=headline,
        rows=rows,
        matrix=confusion_matrix(report.classes, report.classes, confusion),
        errors=errors,
        wrong=scores.images - int(correct.sum()),
        calibration=calibration,
    )


def _accuracy_figures(scores: ClassificationScores, how: str) -> list[Figure]:
    mean_interval = interval(mean_class_accuracy_interval(scores.confusion))
    return [
        Figure(f"accuracy{how}", percent(scores.accuracy, 2), interval(accuracy_interval(scores))),
        Figure(f"mean class accuracy{how}", percent(scores.mean_class_accuracy, 2), mean_interval),
    ]


def _miou_figure(scores: SegmentationScores, bounds: tuple[float, float] | None, how: str) -> Figure:
    return Figure(f"mIoU{how}", percent(scores.miou, 2), interval(bounds) if bounds else "of fewer than two images")


def segmentation_sections(report: SegmentationReport, images: Sequence[Path]) -> SegmentationSections:
    """The sections of a segmenter's report; `images` are the files of the data set."""
    scores, confusion = report.scores, report.scores.confusion
    total = int(confusion.sum())
    columns = (scores.per_class, confusion.sum(1) / max(1, total), report.colours)
    rows = [
        ClassRow(name, share, size, colour="#" + bytes(colour).hex())
        for name, share, size, colour in zip(report.classes, *columns, strict=True)
    ]
    examples = [
        SegmentationExample(
            name,
            charts.thumbnail(report.folder / f"{name}.png", EXAMPLE_SIDE),
            path=str(images[index]),
            miou=report.miou_per_image[index],
        )
        for name, index in report.examples.items()
    ]
    ranked = np.argsort(report.miou_per_image, kind="stable")[:LOWEST_IMAGES].tolist()
    lowest = [(str(images[index]), float(report.miou_per_image[index])) for index in ranked]
    headline = [
        _miou_figure(scores, report.interval, ""),
        *([_miou_figure(report.mirrored, report.mirrored_interval, MIRRORED)] if report.mirrored else ()),
        Figure("pixel accuracy", percent(scores.pixel_accuracy, 2), f"of {total:,} pixels"),
        Figure("frequency-weighted IoU", percent(scores.frequency_weighted_iou, 2), "classes by their pixels"),
    ]
    shown = confusion.shape[1] - (not confusion[:, -1].any())
    names = [*report.classes, "no class"][:shown]
    return SegmentationSections(
        headline=headline,
        rows=rows,
        matrix=confusion_matrix(report.classes, names, confusion[:, :shown]),
        examples=examples,
        lowest=[(path, miou) for path, miou in lowest if not np.isnan(miou)],
    )


def _calibration(found: Reliability) -> Calibration:
    upper, lower = charts.reliability_bars(found)
    columns = (found.images.tolist(), found.mean_confidence.tolist(), found.accuracy.tolist())
    rows = [
        ReliabilityRow(f"{100 * index / BINS:.0f} – {100 * (index + 1) / BINS:.0f} %", images, confidence, accuracy)
        for index, (images, confidence, accuracy) in enumerate(zip(*columns, strict=True))
        if images
    ]
    confidence = float(found.confidence.sum() / 1e6 / found.images.sum())
    return Calibration(upper, lower, ece=found.ece, confidence=confidence, rows=rows)
