"""All scores of a task from one sample of labels, with what is not known about classes that no label has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from csg.estimates.candidates import Candidates, Floats
from csg.estimates.choice import chances
from csg.estimates.estimate import Estimate, LabelledSample
from csg.estimates.scores import accuracy, class_accuracy, class_iou, mean_of

Task = Literal["classification", "segmentation"]
CLASS_SCORES = {"classification": class_accuracy, "segmentation": class_iou}
"""The score of one class, whose mean over the classes is the main score of a task."""


@dataclass(frozen=True)
class Estimates:
    """What the labels of a sample say."""

    overall: Estimate
    """Accuracy, or pixel accuracy."""
    mean: Estimate
    """Mean class accuracy, or mIoU."""
    per_class: dict[int, Estimate]
    """Accuracy or IoU of each class that has a label."""
    unseen: tuple[int, ...]
    """Classes that no label has."""


def estimate_scores(sample: LabelledSample, task: Task) -> Estimates:
    """Estimate every score of a task."""
    score, seen = CLASS_SCORES[task], np.unique(sample.true)
    return Estimates(
        overall=sample.estimate(accuracy),
        mean=estimate_mean(sample, task),
        per_class={int(name): sample.estimate(mean_of(score, np.array([name]))) for name in seen},
        unseen=tuple(np.setdiff1d(np.arange(sample.candidates.classes), seen).tolist()),
    )


def estimate_mean(sample: LabelledSample, task: Task) -> Estimate:
    """Estimate the mean class accuracy, or the mIoU.

    A class that no label has may exist. If the model answers it somewhere, the estimate takes its score from the
    sample's confusion matrix, and the interval holds any score of it; if not, the interval holds a score of 0.
    """
    score, seen = CLASS_SCORES[task], np.unique(sample.true)
    unseen = np.setdiff1d(np.arange(sample.candidates.classes), seen)
    answered = np.intersect1d(unseen, sample.candidates.predicted)
    mean, count = sample.estimate(mean_of(score, seen), len(seen)), len(seen) + len(answered)
    value = mean.value * len(seen)
    if len(answered):
        value += score(sample.matrix, answered)[0] * len(answered)
    low = mean.low * len(seen) / (len(seen) + len(unseen))
    high = (mean.high * len(seen) + len(answered)) / count
    return Estimate(value / count, low, high, mean.standard_error)


def task_chances(candidates: Candidates, task: Task) -> Floats:
    """Relative chances for the two scores of a task alike, (M,): `csg.estimates.choice.chances`."""
    answered = np.unique(candidates.predicted)
    return chances(candidates, [accuracy, mean_of(CLASS_SCORES[task], answered)])


def labels_to_halve(labelled: int, population: int | None) -> int:
    """How many more labels halve the interval: its length falls as sqrt(1 / n - 1 / N).

    Args:
        labelled: labels so far, n.
        population: number of images, N; None: points of images, of which there are as good as infinitely many.

    Example:
        >>> labels_to_halve(100, None), labels_to_halve(100, 800)
        (300, 191)
    """
    left = 1 / population if population else 0.0
    wanted = 1 / ((1 / labelled - left) / 4 + left)
    return max(0, round(wanted) - labelled)
