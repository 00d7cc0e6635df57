"""95 % intervals of a student's scores on the real images, from the predictions that its run kept."""

from __future__ import annotations

import numpy as np

from csg.confidence_intervals import SegmentationBootstrap, mean_class_accuracy_interval
from csg.errors import InputError
from csg_train.training.kept_predictions import read_predictions
from csg_train.training.run_files import PREDICTIONS
from csg_train.training.run_folder import Run

Interval = tuple[float, float]


def student_intervals(run: Run) -> dict[str, Interval]:
    """The intervals by field of the evaluation; none if the run has kept no predictions, or they are damaged.

    Args:
        run: a finished run that was measured on real images.
    """
    try:
        found = read_predictions(run.path / PREDICTIONS, "train the run again")
    except InputError:
        return {}
    student = found["student"].astype(np.int64)
    return _of_classes(found["labels"].astype(np.int64), student) if "labels" in found else _of_scenes(student)


def _of_classes(labels: np.ndarray, predicted: np.ndarray) -> dict[str, Interval]:
    confusion = np.zeros((max(labels.max(), predicted.max()) + 1,) * 2, np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    return {"mean_class_accuracy": mean_class_accuracy_interval(confusion)}


def _of_scenes(matrices: np.ndarray) -> dict[str, Interval]:
    bootstrap = SegmentationBootstrap(matrices.shape[1])
    for index, matrix in enumerate(matrices):
        bootstrap.add(index, matrix)
    interval = bootstrap.miou()
    return {"miou": interval} if interval else {}
