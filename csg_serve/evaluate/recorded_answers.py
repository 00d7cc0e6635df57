"""The answers of an evaluation by image, as arrays, from its journal.

Shape letters: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from csg.errors import InputError
from csg_serve.evaluate.folder import RESULT, read_spec
from csg_serve.evaluate.journal import read_journal
from csg_serve.evaluate.records import (
    AnswerRecord,
    ClassificationAnswer,
    ClassificationResult,
    EvaluationSpec,
    JournalRecord,
    SegmentationAnswer,
    SegmentationResult,
)

RESULTS: TypeAdapter[ClassificationResult | SegmentationResult] = TypeAdapter(ClassificationResult | SegmentationResult)


@dataclass(frozen=True)
class RecordedAnswers:
    """The answers of an evaluation by image, of a classifier or of a segmenter."""

    folder: Path
    """Folder of the evaluation."""
    spec: EvaluationSpec
    """The model and the images."""
    classes: tuple[str, ...]
    """Names of the classes that the answers are indices of."""
    answered: NDArray[np.bool_]
    """Whether an image was answered, (N,)."""
    labels: NDArray[np.int64]
    """Class of each image, (N,); of classifiers."""
    predicted: NDArray[np.int64]
    """Class that the model answered, (N,); of classifiers."""
    confidence: NDArray[np.float64]
    """Probability of that class, (N,); of classifiers."""
    confusions: NDArray[np.int64] | None
    """Confusion matrix of each image, (N, K, K + 1); None of a classifier."""


def read_answers(folder: Path) -> RecordedAnswers:
    """The answers of a finished evaluation.

    Raises:
        InputError: the folder holds no finished evaluation, or one that is damaged.
    """
    spec = read_spec(folder)
    try:
        result = RESULTS.validate_json((folder / RESULT).read_bytes())
    except FileNotFoundError:
        hint = f"continue it with `csg evaluate --resume --out {folder}`"
        raise InputError(f"the evaluation in {folder} is not finished: it has no {RESULT}", hint) from None
    except (OSError, ValidationError):
        raise InputError(f"{folder / RESULT} is missing or damaged", "evaluate that model again") from None
    classes = len(result.per_class)

    def fits(answer: AnswerRecord) -> bool:
        if isinstance(answer, SegmentationAnswer):
            return result.task == "segmentation" and max(answer.cells, default=0) < classes * (classes + 1)
        return result.task == "classification" and max(answer.true, answer.predicted) < classes

    try:
        return recorded_answers(folder, spec, tuple(result.per_class), read_journal(folder, spec.images, fits))
    except OSError:
        raise InputError(f"the journal in {folder} can't be read", "evaluate that model again") from None


def recorded_answers(
    folder: Path, spec: EvaluationSpec, classes: tuple[str, ...], records: Iterable[JournalRecord]
) -> RecordedAnswers:
    """The answers among the records of a journal."""
    answered, confidence = np.zeros(spec.images, bool), np.zeros(spec.images)
    labels, predicted = np.full((2, spec.images), -1)
    confusions: NDArray[np.int64] | None = None
    for record in records:
        if isinstance(record, ClassificationAnswer):
            labels[record.index], predicted[record.index] = record.true, record.predicted
            confidence[record.index] = record.confidence
        elif isinstance(record, SegmentationAnswer):
            if confusions is None:
                confusions = np.zeros((spec.images, len(classes), len(classes) + 1), np.int64)
            confusions[record.index].flat[list(record.cells)] = record.pixels
        else:
            continue
        answered[record.index] = True
    return RecordedAnswers(
        folder, spec, classes, answered=answered, labels=labels, predicted=predicted, confidence=confidence,
        confusions=confusions,
    )  # fmt: skip
