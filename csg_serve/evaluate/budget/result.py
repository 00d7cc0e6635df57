"""The figures of an evaluation with few labels, from its plan and the labels that are there."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from csg.errors import printable
from csg.estimates.estimate import Estimate, LabelledSample
from csg.estimates.report import Estimates, estimate_mean, estimate_scores, labels_to_halve
from csg.records import Record
from csg_serve.evaluate.budget.store import PlanFolder
from csg_serve.evaluate.labelling.answers import MergedLabels
from csg_serve.evaluate.records import SCHEMA_VERSION, Count, Interval, Share, Source, WrittenPath

FEWEST = 10
"""Labels below which nothing is estimated."""
FIRST_LOOK = 50
"""Labels before which an interval is not compared with --half-width."""


class EstimatedScore(Record):
    """A score, estimated from the labels."""

    value: Share
    """The estimate."""
    interval: Interval
    """95 % confidence interval."""
    half_width: Share
    """Half the length of the interval."""


class LabelDisagreement(Record):
    """An item that people gave different classes."""

    item: Count
    """Number of the item."""
    image: Source
    """Its image."""
    answers: dict[str, str]
    """The class that each person gave, by name."""
    settled: str | None
    """The class that most gave, which counts; None: the item is open."""


class BudgetResult(Record):
    """estimate.json and `csg evaluate --budget --json`."""

    schema_version: Literal[1] = SCHEMA_VERSION
    """Version of the file format."""
    task: Literal["classification", "segmentation"]
    """The model's task."""
    model: str
    """Name of the model."""
    version: Count
    """Version of the model; 0 of a bundle."""
    bundle: Source | None
    """The bundle that answered; None if a server did."""
    images: Count
    """Images that the model was asked about, each content once."""
    duplicates: Count
    """Images that were left out, since their content is that of another one."""
    unreadable: Count
    """Images that were left out, since they can't be read."""
    budget: Count
    """Images, or points of images, that the plan lists."""
    labelled: Count
    """Labels that count: those before the first open item of the list."""
    cannot_tell: Count
    """Items among these of which people can't tell the class; they are left out of every score."""
    waiting: Count
    """Labels that do not count yet, since an item before them is open."""
    scores: dict[str, EstimatedScore]
    """Accuracy and mean class accuracy, or pixel accuracy and mIoU; empty with fewer than ten labels."""
    per_class: dict[str, EstimatedScore | None]
    """Accuracy or IoU of each class; None for a class without labels."""
    unseen: tuple[str, ...]
    """Classes that no label has: the interval of the mean holds whatever their scores may be."""
    more_to_halve: Count | None
    """How many more labels halve the interval of the mean, about; None with fewer than ten labels."""
    half_width: Share | None
    """The half-width that was asked for, of the mean."""
    reached: bool | None
    """Whether it is reached; None if none was asked for."""
    disagreements: tuple[LabelDisagreement, ...]
    """Items that people gave different classes."""
    folder: WrittenPath
    """The folder with the plan and the labels."""
    report: WrittenPath | None = None
    """The HTML page, if one was written."""

    @property
    def main(self) -> str:
        """Name of the score that --half-width and `more_to_halve` are about."""
        return "miou" if self.task == "segmentation" else "mean_class_accuracy"


def counted_labels(opened: PlanFolder, merged: MergedLabels) -> list[str | None]:
    """The labels before the first open item, in the order of the plan."""
    labels = []
    for number in range(len(opened.plan.items)):
        if number not in merged.labels:
            break
        labels.append(merged.labels[number])
    return labels


def labelled_sample(opened: PlanFolder, labels: list[str | None]) -> LabelledSample | None:
    """The sample that the first labels of the plan are; None if fewer than `FEWEST` are of a class."""
    if len(labels) - labels.count(None) < FEWEST:
        return None
    number = {name: index for index, name in enumerate(opened.plan.classes)}
    true = np.array([-1 if label is None else number[label] for label in labels])
    rows, inclusion = opened.order.rows[: len(labels)], opened.order.inclusion(len(labels))
    return LabelledSample(opened.asked.candidates, inclusion, rows, true)


def enough(opened: PlanFolder, half_width: float, merged: MergedLabels) -> str | None:
    """Say that the half-width is reached; None if it is not, or not looked at yet.

    It is looked at after `FIRST_LOOK` labels and after every tenth more: the rule looks at the length of the interval,
    never at the estimate (Chow and Robbins 1965).
    """
    labels = counted_labels(opened, merged)
    if len(labels) < FIRST_LOOK or len(labels) % 10:
        return None
    sample = labelled_sample(opened, labels)
    mean = estimate_mean(sample, opened.plan.task) if sample else None
    if mean is None or mean.half_width > half_width:
        return None
    return f"The interval is {mean.value:.1%} ± {mean.half_width:.1%}, as short as was asked for."


def budget_result(opened: PlanFolder, merged: MergedLabels, half_width: float | None) -> BudgetResult:
    """The figures so far."""
    plan, labels = opened.plan, counted_labels(opened, merged)
    sample = labelled_sample(opened, labels)
    found = estimate_scores(sample, plan.task) if sample else None
    names = ("pixel_accuracy", "miou") if plan.task == "segmentation" else ("accuracy", "mean_class_accuracy")
    population = None if plan.task == "segmentation" else len(plan.images)
    wide = half_width is not None and (found is None or len(labels) < min(FIRST_LOOK, len(opened.order.keys)))
    return BudgetResult(
        task=plan.task,
        model=plan.model,
        version=plan.model_version,
        bundle=plan.bundle,
        images=len(plan.images),
        duplicates=plan.duplicates,
        unreadable=plan.unreadable,
        budget=len(plan.items),
        labelled=len(labels),
        cannot_tell=labels.count(None),
        waiting=len(merged.labels) - len(labels),
        scores={} if found is None else dict(zip(names, map(_score, (found.overall, found.mean)), strict=True)),
        per_class=_per_class(plan.classes, found) if found else {},
        unseen=tuple(plan.classes[index] for index in found.unseen) if found else (),
        more_to_halve=labels_to_halve(len(labels), population) if found else None,
        half_width=half_width,
        reached=None if half_width is None else not wide and bool(found and found.mean.half_width <= half_width),
        disagreements=_disagreements(opened, merged),
        folder=opened.folder,
    )


def _score(found: Estimate) -> EstimatedScore:
    return EstimatedScore(value=found.value, interval=(found.low, found.high), half_width=found.half_width)


def _per_class(classes: tuple[str, ...], found: Estimates) -> dict[str, EstimatedScore | None]:
    own = found.per_class
    return {name: _score(own[index]) if index in own else None for index, name in enumerate(classes)}


def _disagreements(opened: PlanFolder, merged: MergedLabels) -> tuple[LabelDisagreement, ...]:
    return tuple(
        LabelDisagreement(
            item=one.item,
            image=printable(str(Path(opened.plan.images[opened.plan.items[one.item].image].image))),
            answers=dict(one.answers),
            settled=one.settled,
        )
        for one in merged.disagreements
    )
