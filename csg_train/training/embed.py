"""`csg embed`: the pooled embeddings of a run's student, for plots and measures of your own."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from csg.console import log, print_json
from csg.errors import InputError, UsageError
from csg.files import atomic_write
from csg_train.energy import hyperspherical_energy
from csg_train.tasks import TASKS, Images, Measurement, predicting
from csg_train.training.run_folder import Run, newest_run
from csg_train.training.student import load_student


def embed_command(path: Path | None, data: list[str] | None, out: Path | None, as_json: bool) -> None:
    """Write the embeddings of a run's student as .npz, and print their energies.

    The file contains `embeddings`, float32 (N, C), `classes` and `paths`; for a classifier also `labels` and
    `predicted`, int64 (N,).

    Args:
        path: run folder; None: the newest in runs/.
        data: images; None: the run's real images.
        out: file to write; None: <run>.npz.
        as_json: print the result as JSON.
    """
    run = Run(path or newest_run(Path("runs")))
    out = out or Path(f"{run.path.resolve().name}.npz")
    if out.suffix != ".npz":
        raise UsageError(f"{out} does not end in .npz", "name the file *.npz")
    log(f"embed: run {run.path}" + ("" if path else " (newest)") + f", to {out}")
    images, measurement = measure_run(run, data)
    buffer, of_images = io.BytesIO(), {"labels": measurement.true, "predicted": measurement.predicted}
    np.savez_compressed(
        buffer,
        embeddings=measurement.embeddings,
        classes=np.array(run.class_spec().names),
        paths=np.array([str(file) for file in images.paths]),
        **{name: values for name, values in of_images.items() if values is not None},
    )
    atomic_write(out, buffer.getvalue())
    energy = hyperspherical_energy(measurement.embeddings)
    if energy:
        count = len(measurement.embeddings)
        log(f"{count} embeddings: E_0 {energy.E_0:.4f}, E_1 {energy.E_1:.4f}, E_2 {energy.E_2:.4f}")
    if as_json:
        print_json({"file": str(out), "energy": asdict(energy) if energy else None})


def measure_run(run: Run, data: list[str] | None = None) -> tuple[Images, Measurement]:
    """Measure the student of a finished run on its real images, or on `data`.

    Raises:
        InputError: the run has no real images and none are named, or their classes are not those of the run.
    """
    recipe, classes = run.recipe(), run.class_spec()
    sources = data or list(recipe.data.real)
    if not sources:
        raise InputError(f"run {run.path} was trained without real images", "name images with --data")
    task = TASKS[recipe.task]
    images = task.read_real(recipe, classes, sources, partly=True)
    with predicting(load_student(run)) as predict:
        return images, task.measure(predict, classes, images, recipe, device=torch.device("cpu"))
