"""The predictions of a comparison's runs, kept in `predictions/`: what the intervals are computed from.

Each file is a run's `predictions.npz` without what no interval needs. It holds no paths and no images.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from csg.errors import InputError
from csg.files import atomic_write
from csg.metrics import union_pixels
from csg.npz import npz_bytes
from csg_train.compare.intervals import Counts, Sampled, estimate_of, sampled
from csg_train.compare.results import Difference, MethodResult
from csg_train.methods.spec import file_name
from csg_train.training.kept_predictions import read_predictions
from csg_train.training.run_files import PREDICTIONS
from csg_train.training.run_folder import Run

SampledMethods = dict[str, dict[int, Sampled]]
"""The runs of each method by seed, by label, in the order of the table."""
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


def sampled_methods(folder: Path, methods: Sequence[MethodResult]) -> SampledMethods:
    """The runs of all methods on bootstrap samples of the images, without those whose predictions are missing.

    Args:
        folder: of the comparison.
        methods: in the order of the table.

    Raises:
        InputError: a file is damaged, or two are not of the same images.
    """
    found = {(method.label, seed): run for method in methods for seed, run in method_counts(folder, method).items()}
    made: SampledMethods = {method.label: {} for method in methods}
    if not found:
        return made
    (first, _), labels = next(iter(found)), next(iter(found.values())).labels
    for (label, _), run in found.items():
        if not np.array_equal(run.labels, labels):
            what = f"the predictions of {label} and {first} in {folder / FOLDER} are not of the same images"
            raise InputError(what, "measure all runs on the same real images, or remove the files of the others")
    for (label, seed), scores in zip(found, sampled(list(found.values())), strict=True):
        made[label][seed] = scores
    return made


def differences(found: SampledMethods) -> list[Difference]:
    """How far each method is from the reference, where both have predictions of the same seeds."""
    reference = next((label for label in REFERENCES if label in found), next(iter(found)))
    compared = (_difference(found, label, reference) for label in found if label != reference)
    return [one for one in compared if one]


def pairs(found: SampledMethods) -> list[Difference]:
    """How far every two methods are apart, the later one from the earlier, where both have the same seeds."""
    compared = (_difference(found, later, earlier) for earlier, later in itertools.combinations(found, 2))
    return [one for one in compared if one]


def _difference(found: SampledMethods, label: str, reference: str) -> Difference | None:
    """The difference of two methods; None without predictions of a seed that both have, or of a single image."""
    seeds = [seed for seed in found[reference] if seed in found[label]]
    own, against = ([found[name][seed] for seed in seeds] for name in (label, reference))
    if not seeds or own[0].images < 2:
        return None
    result = estimate_of(own, against)
    return Difference(label=label, reference=reference, seeds=len(seeds), images=own[0].images, **vars(result))


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
