"""`csg embed`: the pooled embeddings of a run's student, for plots and measures of your own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from csg.console import log, print_json
from csg.errors import InputError, UsageError
from csg.files import atomic_write
from csg.locks import writing
from csg.npz import npz_bytes
from csg_train.energy import hyperspherical_energy
from csg_train.tasks import TASKS, Images, Measurement, predicting
from csg_train.training.environment import training_device
from csg_train.training.run_data import real_images, with_notes
from csg_train.training.run_files import RUNS
from csg_train.training.run_folder import Run, newest_run
from csg_train.training.student import load_student


def embed_command(
    path: Path | None, data: list[str] | None, out: Path | None, *, mirrored: bool, as_json: bool
) -> None:
    """Write the embeddings of a run's student as .npz, and print their energies and the student's scores.

    The file contains `embeddings`, float32 (N, C), `classes` and `paths`; for a classifier also `labels` and
    `predicted`, int64 (N,).

    Args:
        path: run folder; None: the newest in runs/.
        data: images; None: the run's real images.
        out: file to write; None: <run>.npz.
        mirrored: also measure image and mirror image together; the embeddings are those of the image.
        as_json: print the result as JSON.
    """
    run = Run(path or newest_run(RUNS))
    out = out or Path(f"{run.path.resolve().name}.npz")
    if out.suffix != ".npz":
        raise UsageError(f"{out} does not end in .npz", "name the file *.npz")
    log(f"embed: run {run.path}" + ("" if path else " (newest)") + f", to {out}")
    with writing(out):
        images, measurement = measure_run(run, data or (), mirrored)
        _write(out, run, images, measurement)
    energy = hyperspherical_energy(measurement.embeddings)
    if energy:
        count = len(measurement.embeddings)
        log(f"{count} embeddings: E_0 {energy.E_0:.4f}, E_1 {energy.E_1:.4f}, E_2 {energy.E_2:.4f}")
    log(f"{images.name}: {measurement.evaluation.headline}")
    if measurement.mirrored:
        log(f"{images.name}, with mirror images: {measurement.mirrored.headline}")
    if as_json:
        scores = {"evaluation": measurement.evaluation, "mirrored": measurement.mirrored}
        as_trees = {name: one and one.model_dump(mode="json") for name, one in scores.items()}
        print_json({"file": str(out), "energy": asdict(energy) if energy else None, **as_trees})


def _write(out: Path, run: Run, images: Images, measurement: Measurement) -> None:
    of_images = {"labels": measurement.true, "predicted": measurement.predicted}
    arrays = {
        "embeddings": measurement.embeddings,
        "classes": np.array(run.class_spec().names),
        "paths": np.array([str(file) for file in images.paths]),
        **{name: values for name, values in of_images.items() if values is not None},
    }
    atomic_write(out, npz_bytes(arrays))


def measure_run(run: Run, data: Sequence[str] = (), mirrored: bool = False) -> tuple[Images, Measurement]:
    """Measure the student of a finished run on its real images, or on any others, on the GPU if there is one.

    Args:
        run: a finished run.
        data: other images; none: the run's real images, which must be those that it was started with.
        mirrored: also measure image and mirror image together.

    Raises:
        InputError: the run has no real images and none are named, they have changed, or the classes are others.
    """
    student, recipe, classes, device = load_student(run), run.recipe(), run.class_spec(), training_device()
    task = TASKS[recipe.task]
    images = with_notes(task.read_real(recipe, classes, data)) if data else real_images(run, option="--data")
    if images is None:
        raise InputError(f"run {run.path} was trained without real images", "name images with --data")
    with predicting(student.to(device), mirrored) as predict:
        return images, task.measure(predict, classes, images, recipe, device=device)
