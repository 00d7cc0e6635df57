"""The predictions of a comparison's runs, kept in `predictions/`: what the intervals are computed from.

Each file is a run's `predictions.npz` without what no interval needs. It holds no paths and no images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from csg.errors import InputError
from csg.files import atomic_write
from csg.metrics import union_pixels
from csg.npz import npz_bytes
from csg_train.compare.intervals import Counts, estimate
from csg_train.compare.results import Difference, MethodResult
from csg_train.methods.spec import file_name
from csg_train.training.kept_predictions import read_predictions
from csg_train.training.run_files import PREDICTIONS
from csg_train.training.run_folder import Run

FOLDER = "predictions"
REFERENCES = ("none:augment=true", "none")
"""The methods that others are compared with, the first that is there; without them it is the first of all."""


def keep_predictions(folder: Path, label: str, run: Run) -> None:
    """Copy the predictions of a run's student, if it has them.

    Raises:
        InputError: the file is damaged.
    """
    file = run.path / PREDICTIONS
    if not file.is_file():  # the run of an older csg
        return
    arrays = read_predictions(file, "train the run again")
    smallest = {name: _smallest(array) for name, array in arrays.items()}
    atomic_write(_file(folder, label, run.recipe().seed), npz_bytes(smallest))


def differences(folder: Path, methods: Sequence[MethodResult]) -> list[Difference]:
    """How far each method is from the reference, where both have predictions of the same seeds.

    Args:
        folder: of the comparison.
        methods: in the order of the table.

    Raises:
        InputError: a file is damaged, or two are not of the same images.
    """
    labels = [method.label for method in methods]
    reference = next((label for label in REFERENCES if label in labels), labels[0])
    counts = {method.label: method_counts(folder, method) for method in methods}
    found = list[Difference]()
    for label in labels:
        seeds = [seed for seed in counts[reference] if seed in counts[label]]
        if label == reference or not seeds:
            continue
        own, against = ([counts[name][seed] for seed in seeds] for name in (label, reference))
        images = len(own[0].labels)
        if any(not np.array_equal(own[0].labels, other.labels) for other in (*own, *against)):
            what = f"the predictions of {label} and {reference} in {folder / FOLDER} are not of the same images"
            raise InputError(what, "measure all runs on the same real images, or remove the files of the others")
        if images < 2:
            continue
        result = estimate(own, against)
        found.append(Difference(label=label, reference=reference, seeds=len(seeds), images=images, **vars(result)))
    return found


def method_counts(folder: Path, method: MethodResult) -> dict[int, Counts]:
    """What the scores of a method's runs are computed from, by seed; without the runs whose predictions are missing.

    Raises:
        InputError: as `differences`.
    """
    found = dict[int, Counts]()
    for run in method.runs:
        file = _file(folder, method.label, run.seed)
        if file.is_file():
            hint = "restore it, or remove it: its run then counts in no interval"
            counts = _counts(read_predictions(file, hint))
            score = counts.scores(np.ones((1, len(counts.right))))[0]
            if len(counts.labels) != run.images or abs(score - next(iter(run.scores.values()))) > 1e-6:
                raise InputError(f"{file} does not belong to the run of comparison.json", hint)
            found[run.seed] = counts
    return found


def _file(folder: Path, label: str, seed: int) -> Path:
    return folder / FOLDER / f"{file_name(label)}-{seed}.npz"


def _counts(arrays: dict[str, np.ndarray]) -> Counts:
    student = arrays["student"].astype(np.int64)
    if student.ndim == 1:
        labels = arrays["labels"].astype(np.int64)
        whole = np.eye(labels.max() + 1, dtype=np.int64)[labels]
        return Counts(whole * (student == labels)[:, None], whole, labels)
    union = np.stack([union_pixels(matrix) for matrix in student])
    return Counts(student.diagonal(axis1=1, axis2=2), union, student.sum(2))


def _smallest(array: np.ndarray) -> np.ndarray:
    """The same whole numbers in the smallest type that holds them."""
    return array.astype(np.min_scalar_type(int(array.max())))
