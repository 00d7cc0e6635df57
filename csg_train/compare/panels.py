"""What the figures of a comparison need of each method, kept in `panels/`, and the figures drawn from it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from csg.console import log
from csg.files import atomic_write
from csg_train.compare.figures import Panel, angles, circle_figure, confusion_figure, save_figure
from csg_train.compare.results import ENERGIES
from csg_train.energy import hyperspherical_energy
from csg_train.methods.spec import MethodSpec, file_name
from csg_train.tasks import TASKS
from csg_train.training.embed import measure_run
from csg_train.training.run_folder import Run

PANELS = "panels"


def keep_panel(folder: Path, spec: MethodSpec, run: Run) -> None:
    """Measure a run, and write the panel of its method."""
    images, measurement = measure_run(run)
    score = getattr(measurement.evaluation, next(iter(TASKS[run.recipe().task].scores)))
    energy, buffer = hyperspherical_energy(measurement.embeddings), io.BytesIO()
    np.savez_compressed(
        buffer,
        angles=angles(measurement.embeddings).astype(np.float32),
        true=np.array([], np.int64) if measurement.true is None else measurement.true,
        confusion=measurement.confusion,
        classes=np.array(images.class_spec.names),
        score=score,
        energies=np.array([getattr(energy, name) for name in ENERGIES] if energy else []),
    )
    atomic_write(folder / PANELS / f"{spec.file_name}.npz", buffer.getvalue())


def draw_figures(folder: Path, labels: Sequence[str]) -> None:
    """Draw `circle.png` and `confusion.png` of the methods that have a panel."""
    log("drawing the figures")
    panels, classes = [], ()
    for label in labels:
        file = folder / PANELS / f"{file_name(label)}.npz"
        if file.is_file():
            with np.load(file) as arrays:
                classes = tuple(arrays["classes"].tolist())
                panels.append(
                    Panel(
                        name=label,
                        score=float(arrays["score"]),
                        angles=arrays["angles"],
                        true=arrays["true"] if len(arrays["true"]) else None,
                        confusion=arrays["confusion"],
                        energies=tuple(arrays["energies"].tolist()),
                    )
                )
    if not panels:
        return
    save_figure(circle_figure(panels, classes), folder / "circle.png")
    save_figure(confusion_figure(panels, classes), folder / "confusion.png")
