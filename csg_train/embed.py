"""`csg embed`: the pooled embeddings of a run, for plots and measures of people's own."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch

from csg.console import print_json, say
from csg.errors import InputError, UsageError
from csg.files import write_bytes
from csg.realset import LabelledImages, read_labelled
from csg_train.energy import hyperspherical_energy
from csg_train.evaluate import Measured, evaluate_student
from csg_train.run import Run, newest_run
from csg_train.student import load_student


def embed_command(path: Path | None, data: list[str] | None, out: Path | None, as_json: bool) -> None:
    """Write the embeddings of a run's student as .npz and print their energies.

    The file holds `embeddings` float32 (N, C), `labels` and `predicted` int64 (N,), `classes` and `paths`.
    """
    run = Run(path or newest_run(Path("runs")))
    out = out or Path(f"{run.path.resolve().name}.npz")
    if out.suffix != ".npz":
        raise UsageError(f"{out} does not end in .npz", "name the file *.npz")
    say(f"embed: run {run.path}" + ("" if path else " (newest)") + f", to {out}")
    images, measured = measure_run(run, data)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        embeddings=measured.embeddings,
        labels=measured.true,
        predicted=measured.predicted,
        classes=np.array(images.classes),
        paths=np.array([str(file) for file in images.paths]),
    )
    write_bytes(out, buffer.getvalue())
    energy = hyperspherical_energy(measured.embeddings)
    if energy:
        say(f"{len(measured.true)} embeddings: E_0 {energy.E_0:.4f}, E_1 {energy.E_1:.4f}, E_2 {energy.E_2:.4f}")
    if as_json:
        print_json({"file": str(out), "energy": energy.as_dict() if energy else None})


def measure_run(run: Run, data: list[str] | None = None) -> tuple[LabelledImages, Measured]:
    """The student of a finished run on its real set, or on `data`.

    Raises:
        InputError: the run has no real set and none is named, or its classes are others.
    """
    recipe, classes = run.recipe(), run.environment()["classes"]
    sources = data or list(recipe.data.real)
    if not sources:
        raise InputError(f"run {run.path} was trained without a real set", "name images with --data")
    images = read_labelled(sources).in_order_of(classes, partly=True)
    return images, evaluate_student(load_student(run), images, recipe.data.image_input(), torch.device("cpu"))
