"""Two evaluations of the same images, answer by answer: A, the one that is kept, and B, the one that is made.

Shape letters: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from csg.console import show_line
from csg.datasets.classification import ClassificationDataset
from csg.datasets.segmentation import SegmentationDataset
from csg.errors import InputError, VerificationError
from csg.metrics import safe_ratio, score_name, segmentation_scores, union_pixels
from csg.paired_tests import PairedResult, ScoreDifference, compare_classifications, compare_confusions
from csg_serve.evaluate.recorded_answers import RecordedAnswers
from csg_serve.evaluate.records import AgainstResult, DifferingImage, DifferingScene, Requirement

SHOWN = 12
"""Images that only one of the models gets right, of each model, that are named and shown."""
SHOWN_CLASSES = 3
"""Classes of a scene that are named."""
MARGIN = 0.01
"""Loss of the main score that does not count as worse."""


@dataclass(frozen=True)
class Against:
    """What an evaluation is compared with, and what is required of it."""

    other: str
    """Folder of an evaluation or of a bundle, or the name of another model on the servers."""
    require: Literal["not-worse", "better"] | None = None
    """What the main score has to be; None: anything."""
    margin: float = MARGIN
    """Loss of the main score that does not count as worse, for "not-worse"."""


def check_same_images(a: RecordedAnswers, dataset: ClassificationDataset | SegmentationDataset) -> None:
    """Check that an evaluation is of the images of a data set, with the same labels.

    Raises:
        InputError: they differ.
    """
    spec = a.spec
    if spec.images != len(dataset):
        what = f"{spec.images} of {spec.dataset} there, {len(dataset)} of {dataset.name} here"
    elif spec.fingerprint != _fingerprint(dataset, a.classes):
        what = f"{spec.dataset} there, {dataset.name} here; a file, a label or their order differs"
    else:
        return
    raise InputError(
        f"the evaluation in {a.folder} is not of the same images: {what}",
        "evaluate both models on the same --data, in the same order",
    )


def _fingerprint(dataset: ClassificationDataset | SegmentationDataset, classes: tuple[str, ...]) -> str | None:
    """The fingerprint that a data set has for a model with other classes, or in another order; None if it has none."""
    if isinstance(dataset, SegmentationDataset) or dataset.classes == classes:
        return dataset.fingerprint()
    place = np.array([classes.index(name) if name in classes else -1 for name in dataset.classes])
    labels = place[dataset.labels]
    return None if labels.min() < 0 else replace(dataset, classes=classes, labels=labels).fingerprint()


def compare_answers(a: RecordedAnswers, b: RecordedAnswers, images: Sequence[Path], against: Against) -> AgainstResult:
    """Compare two models on the images that both answered.

    Args:
        a: answers of the other evaluation, of the same images.
        b: answers of this one.
        images: files of the data set.
        against: what is required.

    Raises:
        InputError: the tasks or the classes differ, or no image was answered by both.
    """
    if (a.confusions is None) != (b.confusions is None):
        raise InputError(f"{a.folder} is the evaluation of a model for another task", "name one of the same task")
    both = a.answered & b.answered
    if not both.any():
        raise InputError(f"no image was answered both here and in {a.folder}", "repair the images, evaluate both again")
    paired, only_a, only_b = (_classifiers if b.confusions is None else _segmenters)(a, b, both, images)
    return AgainstResult(
        folder=a.folder,
        model=a.spec.model,
        version=a.spec.version,
        bundle=a.spec.bundle,
        left_out=int((~both).sum()),
        paired=paired,
        verdicts={name: paired.verdict(name) for name in paired.differences},
        only_a=only_a,
        only_b=only_b,
        requirement=_requirement(paired, against),
    )


def _in_classes_of(a: RecordedAnswers, b: RecordedAnswers) -> RecordedAnswers:
    """A's answers as indices into B's classes; classes that B does not have follow them."""
    names = (*b.classes, *(name for name in a.classes if name not in b.classes))
    place = np.array([*map(names.index, a.classes), -1])  # the last one for images without an answer
    return replace(a, classes=names, labels=place[a.labels], predicted=place[a.predicted])


def _classifiers(
    a: RecordedAnswers, b: RecordedAnswers, both: NDArray[np.bool_], images: Sequence[Path]
) -> tuple[PairedResult, tuple[DifferingImage, ...], tuple[DifferingImage, ...]]:
    a = _in_classes_of(a, b)
    if not np.array_equal(a.labels[both], b.labels[both]):
        raise InputError(
            f"the journal in {a.folder} has other classes for the same images", "evaluate that model again"
        )
    right_a, right_b = a.predicted == a.labels, b.predicted == b.labels

    def shown(which: NDArray[np.bool_], wrong: RecordedAnswers) -> tuple[DifferingImage, ...]:
        """Of the images, those whose wrong answer has the highest confidence."""
        found = np.flatnonzero(which & both)
        return tuple(
            DifferingImage(
                image=str(images[index]),
                index=index,
                true=b.classes[b.labels[index]],
                a=a.classes[a.predicted[index]],
                b=b.classes[b.predicted[index]],
                confidence_a=a.confidence[index],
                confidence_b=b.confidence[index],
            )
            for index in found[np.argsort(-wrong.confidence[found], kind="stable")[:SHOWN]].tolist()
        )

    paired = compare_classifications(b.labels[both], a.predicted[both], b.predicted[both])
    return paired, shown(right_a & ~right_b, b), shown(right_b & ~right_a, a)


def _segmenters(
    a: RecordedAnswers, b: RecordedAnswers, both: NDArray[np.bool_], images: Sequence[Path]
) -> tuple[PairedResult, tuple[DifferingScene, ...], tuple[DifferingScene, ...]]:
    if a.classes != b.classes:
        raise InputError(f"{a.folder} was measured with other classes", "evaluate both models with the same --labels")
    assert a.confusions is not None and b.confusions is not None
    differ = both & a.confusions.any((1, 2)) & (a.confusions != b.confusions).any((1, 2))
    found = [
        _scene(index, str(images[index]), b.classes, (a.confusions[index], b.confusions[index]))
        for index in np.flatnonzero(differ).tolist()
    ]
    losses = sorted((one for one in found if one.b < one.a), key=lambda one: one.b - one.a)
    gains = sorted((one for one in found if one.b > one.a), key=lambda one: one.a - one.b)
    paired = compare_confusions(a.confusions[both], b.confusions[both])
    return paired, tuple(losses[:SHOWN]), tuple(gains[:SHOWN])


def _scene(
    index: int, image: str, names: Sequence[str], matrices: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> DifferingScene:
    of_a, of_b = (np.nan_to_num(safe_ratio(one.diagonal(), union_pixels(one))) for one in matrices)
    order = np.argsort(-np.abs(of_b - of_a), kind="stable")[:SHOWN_CLASSES].tolist()
    miou_a, miou_b = (segmentation_scores(one).miou for one in matrices)
    classes = {names[k]: (float(of_a[k]), float(of_b[k])) for k in order if of_a[k] != of_b[k]}
    return DifferingScene(index=index, image=image, a=miou_a, b=miou_b, classes=classes)


def _requirement(paired: PairedResult, against: Against) -> Requirement | None:
    if against.require is None:
        return None
    score = paired.main_score
    better = paired.verdict(score) == "better"
    met = better if against.require == "better" else paired.not_worse(score, against.margin)
    return Requirement(require=against.require, margin=against.margin, met=met)


def check_requirement(result: AgainstResult, subject: str, other: str | None = None) -> None:
    """Raise an error if the requirement is not met.

    Args:
        result: the comparison.
        subject: the model, for the message.
        other: what it is compared with; None: the evaluation.

    Raises:
        VerificationError: it is not shown that the model is better, or not worse.
    """
    required, paired, score = result.requirement, result.paired, result.paired.main_score
    if required is None or required.met:
        return
    margin = 0.0 if required.require == "better" else required.margin
    what = "better" if required.require == "better" else f"less than {100 * margin:g} points worse"
    needed = paired.images_needed(score, margin)
    hint = f"{needed:,} images would show it" if needed else "`csg evaluate --against --report` shows where they differ"
    raise VerificationError(
        f"{subject} is not shown to be {what} than {other or f'{result.title} in {result.folder}'}: "
        f"{score_line(paired, score)} on {paired.images:,} images",
        f"if the difference stayed, about {hint}" if needed else hint,
    )


def score_line(paired: PairedResult, score: str) -> str:
    """A score of both, their difference and its interval, on one line."""
    found = paired.differences[score]
    if found.difference is None or found.a is None or found.b is None:
        return f"{score_name(score)} has no value"
    text = f"{score_name(score)} {found.a:.2%}, then {found.b:.2%}: {100 * found.difference:+.2f} points"
    return f"{text} ({interval_text(found)})"


def interval_text(found: ScoreDifference) -> str:
    """The interval of a difference in percentage points."""
    if found.low is None or found.high is None:
        return "too few images for an interval"
    return f"{100 * found.low:+.2f} to {100 * found.high:+.2f}"


def show_against(result: AgainstResult) -> None:
    """Print the comparison."""
    paired = result.paired
    left = f", {result.left_out:,} left out" if result.left_out else ""
    other = f"{result.title} in {result.folder}/"
    show_line(f"against              {other}, {paired.images:,} images in both{left}")
    for name, verdict in result.verdicts.items():
        show_line(f"                     {score_line(paired, name)}, {verdict}")
    differ = f"                     {paired.differing:,} images differ"
    if paired.p_value is not None:
        differ += f", {paired.only_b_right:,} right here alone, {paired.only_a_right:,} right there alone"
        differ += f", McNemar's exact p = {paired.p_value:.2g}"
    show_line(differ)
    if required := result.requirement:
        show_line(f"required             {required.require}: {'shown' if required.met else 'not shown'}")
