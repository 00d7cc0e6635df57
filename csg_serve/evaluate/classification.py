"""Figures of a served classifier, computed from the journal."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from csg.confidence_intervals import mean_class_accuracy_interval, wilson
from csg.console import show_line, show_table
from csg.errors import InputError
from csg.metrics import ClassificationScores, Reliability, by_class_name, scores_from_confusion
from csg_serve.evaluate.progress import Progress
from csg_serve.evaluate.records import (
    AgainstResult,
    ClassificationAnswer,
    ClassificationResult,
    EvaluationSpec,
    JournalRecord,
    MirroredAccuracy,
)

SHOWN_ERRORS = 24
"""Wrong answers that the report shows with pictures."""


@dataclass(frozen=True)
class Misclassification:
    """A wrong answer."""

    index: int
    """Index of the image."""
    true: int
    """Index of its class."""
    predicted: int
    """Index of the class that the model gave."""
    confidence: float
    """Probability of the predicted class."""


@dataclass(frozen=True)
class ClassificationReport:
    """Figures of a served classifier on a set of images."""

    folder: Path
    """Folder of the evaluation."""
    spec: EvaluationSpec
    """The model and the images."""
    classes: tuple[str, ...]
    """Class names."""
    progress: Progress
    """Counts, throughput and latency."""
    scores: ClassificationScores
    """Accuracy and the confusion matrix."""
    reliability: Reliability
    """Accuracy by confidence."""
    errors: tuple[Misclassification, ...]
    """The wrong answers with the highest confidence, highest first."""
    mirrored: ClassificationScores | None = None
    """Accuracy of image and mirror image together, if mirror images were sent."""
    against: AgainstResult | None = None
    """The comparison with another evaluation, if one was asked for."""

    def to_result(self, page: Path | None) -> ClassificationResult:
        """The record for result.json; `page` is the HTML page, if one was written."""
        return ClassificationResult(
            model=self.spec.model,
            version=self.spec.version,
            bundle=Path(self.spec.bundle) if self.spec.bundle else None,
            images=self.scores.images,
            skipped=self.progress.skipped,
            accuracy=self.scores.accuracy,
            accuracy_interval=accuracy_interval(self.scores),
            mean_class_accuracy=self.scores.mean_class_accuracy,
            mean_class_accuracy_interval=mean_class_accuracy_interval(self.scores.confusion),
            per_class=by_class_name(self.classes, self.scores.per_class),
            ece=self.reliability.ece,
            mirrored=_mirrored_accuracy(self.mirrored) if self.mirrored else None,
            images_per_s=self.progress.images_per_s,
            latency_ms=self.progress.latencies.percentiles(),
            folder=self.folder,
            report=page,
            against=self.against,
        )


def accuracy_interval(scores: ClassificationScores) -> tuple[float, float]:
    """95 % confidence interval of the accuracy."""
    low, high = wilson(np.array(scores.confusion.trace()), np.array(scores.images))
    return float(low), float(high)


def _mirrored_accuracy(scores: ClassificationScores) -> MirroredAccuracy:
    return MirroredAccuracy(
        accuracy=scores.accuracy,
        accuracy_interval=accuracy_interval(scores),
        mean_class_accuracy=scores.mean_class_accuracy,
        mean_class_accuracy_interval=mean_class_accuracy_interval(scores.confusion),
    )


def summarise_classification(
    folder: Path,
    spec: EvaluationSpec,
    classes: tuple[str, ...],
    records: Iterable[JournalRecord],
) -> ClassificationReport:
    """Compute the figures from the records of the journal, in any order and in constant memory.

    Args:
        folder: folder of the evaluation.
        spec: the model and the images.
        classes: class names.
        records: the records, as `Journal.records` has checked them.

    Raises:
        InputError: no image was answered.
    """
    progress, reliability = Progress(), Reliability()
    confusion, of_both = np.zeros((2, len(classes), len(classes)), np.int64)
    top: list[tuple[float, int, Misclassification]] = []  # a heap; of equal confidences the lower index stays
    for record in records:
        progress.add(record)
        if not isinstance(record, ClassificationAnswer):
            continue
        confusion[record.true, record.predicted] += 1
        if record.mirrored is not None:
            of_both[record.true, record.mirrored] += 1
        reliability.add(record.confidence, record.true == record.predicted)
        if record.true != record.predicted:
            error = Misclassification(record.index, record.true, record.predicted, record.confidence)
            heapq.heappush(top, (error.confidence, -error.index, error))
            if len(top) > SHOWN_ERRORS:
                heapq.heappop(top)
    if not progress.answered:
        raise InputError(f"none of the {spec.images} images of {spec.dataset} can be read", "repair them")
    errors = tuple(error for *_, error in sorted(top, reverse=True))
    return ClassificationReport(
        folder=folder,
        spec=spec,
        classes=classes,
        progress=progress,
        scores=scores_from_confusion(confusion),
        reliability=reliability,
        errors=errors,
        mirrored=scores_from_confusion(of_both) if spec.mirrored else None,
    )


def show_classification(report: ClassificationReport) -> None:
    """Print the table of classes and the headline figures."""
    scores, spec, progress = report.scores, report.spec, report.progress
    rows = [
        (name, str(count), f"{share:.1%}" if count else "-")
        for name, count, share in zip(report.classes, scores.confusion.sum(1), scores.per_class, strict=True)
    ]
    title = f"{spec.title} on {spec.dataset}"
    show_table(title, ("class", "images", "accuracy"), rows)
    _show_accuracy(scores, "")
    if report.mirrored:
        _show_accuracy(report.mirrored, ", with mirror image")
    show_line(f"calibration error    {report.reliability.ece:.2%}")
    show_line(f"images               {scores.images}, {progress.skipped} skipped, {progress.images_per_s:.1f}/s")


def _show_accuracy(scores: ClassificationScores, how: str) -> None:
    low, high = accuracy_interval(scores)
    show_line(f"accuracy             {scores.accuracy:.2%} ({low:.1%} to {high:.1%}){how}")
    show_line(f"mean class accuracy  {scores.mean_class_accuracy:.2%}{how}")
