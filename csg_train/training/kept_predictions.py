"""The predictions that a finished run keeps, without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from csg.errors import InputError
from csg.npz import DAMAGED


def read_predictions(file: Path, hint: str) -> dict[str, np.ndarray]:
    """What the student of a run predicts for the real images.

    Args:
        file: the run's `predictions.npz`, or what a comparison has kept of it.
        hint: what to do if it is damaged.

    Returns:
        `student` and `labels`, the predicted and the true class of each image, int (N,); of a segmenter `student`
        alone, a confusion matrix of each image, int (N, K, K) or (N, K, K + 1).

    Raises:
        InputError: the file is damaged.
    """
    try:
        with np.load(file) as arrays:
            found = {name: arrays[name] for name in ("labels", "student") if name in arrays}
        student, labels = found["student"], found.get("labels")
        fits = len(student) and np.issubdtype(student.dtype, np.integer) and student.min() >= 0
        if student.ndim == 1:
            fits = fits and labels is not None and labels.shape == student.shape and labels.min() >= 0
        else:
            fits = fits and student.ndim == 3 and student.shape[1] in (student.shape[2], student.shape[2] - 1)
        if not fits:
            raise ValueError
    except DAMAGED:
        raise InputError(f"{file} is damaged", hint) from None
    return found if student.ndim == 1 else {"student": student}
