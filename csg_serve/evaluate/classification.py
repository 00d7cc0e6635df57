"""Figures of a served classifier, computed from the journal."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from csg.confidence_intervals import mean_class_accuracy_interval, wilson
from csg.console import show_table, stdout
from csg.errors import InputError
from csg.metrics import ClassificationScores, Reliability, finite, scores_from_confusion
from csg_serve.evaluate.journal import Course, Line, Subject

MISTAKES = 24  # shown with pictures


@dataclass(frozen=True)
class Mistake:
    """An image that the model is wrong on: its place, class indices, and the probability given to the wrong class."""

    place: int
    true: int
    predicted: int
    confidence: float


@dataclass(frozen=True)
class ClassificationReport:
    """What a served classifier reaches on a set of real images. mistakes: the surest ones, surest first."""

    folder: Path
    subject: Subject
    classes: tuple[str, ...]
    course: Course
    scores: ClassificationScores
    reliability: Reliability
    mistakes: tuple[Mistake, ...]

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """95 % confidence interval of the accuracy."""
        low, high = wilson(np.array(self.scores.confusion.trace()), np.array(self.scores.images))
        return float(low), float(high)

    def to_dict(self) -> dict[str, Any]:
        """The keys of `csg evaluate --json`; a class without images has None."""
        return {
            "model": self.subject.model,
            "version": self.subject.version,
            "images": self.scores.images,
            "skipped": self.course.skipped,
            "accuracy": self.scores.accuracy,
            "accuracy_interval": self.accuracy_interval,
            "mean_class_accuracy": self.scores.mean_class_accuracy,
            "mean_class_accuracy_interval": mean_class_accuracy_interval(self.scores.confusion),
            "per_class": finite(self.classes, self.scores.per_class),
            "ece": self.reliability.ece,
            "images_per_s": self.course.images_per_s,
            "latency_ms": self.course.latencies.percentiles(),
            "folder": str(self.folder),
        }


def summarise(folder: Path, subject: Subject, classes: tuple[str, ...], lines: Iterable[Line]) -> ClassificationReport:
    """The report from the lines of the journal, in any order, holding none of them.

    Raises:
        InputError: no line is of an image that was answered.
    """
    course, reliability, confusion = Course(), Reliability(), np.zeros((len(classes), len(classes)), np.int64)
    surest: list[tuple[float, int, Mistake]] = []  # a heap of the surest mistakes; of equals the first places
    for line in lines:
        course.add(line)
        if "predicted" not in line:
            continue
        true, predicted, confidence = line["true"], line["predicted"], line["confidence"]
        confusion[true, predicted] += 1
        reliability.add(confidence, true == predicted)
        if true != predicted:
            heapq.heappush(surest, (confidence, -line["place"], Mistake(line["place"], true, predicted, confidence)))
            if len(surest) > MISTAKES:
                heapq.heappop(surest)
    if not course.answered:
        raise InputError(f"none of the {subject.images} images of {subject.dataset} can be read", "repair them")
    mistakes = tuple(mistake for *_, mistake in sorted(surest, reverse=True))
    return ClassificationReport(
        folder, subject, classes, course, scores_from_confusion(confusion), reliability, mistakes
    )


def show_classification(report: ClassificationReport) -> None:
    scores, subject = report.scores, report.subject
    counts = scores.confusion.sum(1)
    rows = [
        (name, str(count), f"{share:.1%}" if count else "-")
        for name, count, share in zip(report.classes, counts, scores.per_class, strict=True)
    ]
    title = f"{subject.model} version {subject.version} on {subject.dataset}"
    show_table(title, ("class", "images", "accuracy"), rows)
    low, high = report.accuracy_interval
    stdout.print(f"accuracy             {scores.accuracy:.2%} ({low:.1%} to {high:.1%})")
    stdout.print(f"mean class accuracy  {scores.mean_class_accuracy:.2%}")
    stdout.print(f"calibration error    {report.reliability.ece:.2%}")
    course = report.course
    stdout.print(f"images               {scores.images}, {course.skipped} skipped, {course.images_per_s:.1f}/s")
