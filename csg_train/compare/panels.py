"""What the figures of a comparison need of each method, kept in `panels/`, and the figures drawn from it."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from csg.console import log
from csg.errors import InputError
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


def _read_panel(file: Path, label: str) -> tuple[Panel, tuple[str, ...]]:
    """The panel of a method, and the classes.

    Raises:
        InputError: the file is damaged.
    """
    try:
        with np.load(file) as arrays:
            classes = tuple(map(str, arrays["classes"].tolist()))
            panel = Panel(
                name=label,
                score=float(arrays["score"]),
                angles=arrays["angles"],
                true=arrays["true"] if len(arrays["true"]) else None,
                confusion=arrays["confusion"],
                energies=tuple(map(float, arrays["energies"])),
            )
        _check(panel, len(classes))
    except (OSError, EOFError, ValueError, TypeError, LookupError, zipfile.BadZipFile, zlib.error):
        hint = "restore it, or remove it: its method is then left out of the figures"
        raise InputError(f"{file} is damaged", hint) from None
    return panel, classes


def _check(panel: Panel, classes: int) -> None:
    """Raise ValueError if the arrays of a panel do not fit together."""
    numbers = (panel.angles, panel.confusion, np.array([panel.score, *panel.energies]))
    fits = panel.angles.ndim == 1 and len(panel.angles) and panel.confusion.shape == (classes, classes)
    if not (fits and all(np.isfinite(array).all() for array in numbers)):
        raise ValueError
    if panel.true is not None and not (len(panel.true) == len(panel.angles) and set(panel.true) <= set(range(classes))):
        raise ValueError


def draw_figures(folder: Path, labels: Sequence[str]) -> None:
    """Draw `circle.png` and `confusion.png` of the methods that have a panel."""
    log("drawing the figures")
    panels = list[Panel]()
    classes: tuple[str, ...] = ()
    for label in labels:
        file = folder / PANELS / f"{file_name(label)}.npz"
        if file.is_file():
            panel, found = _read_panel(file, label)
            if panels and found != classes:
                raise InputError(f"{file} has other classes than the panels before it", "restore it, or remove it")
            panels.append(panel)
            classes = found
    if not panels:
        return
    save_figure(circle_figure(panels, classes), folder / "circle.png")
    save_figure(confusion_figure(panels, classes), folder / "confusion.png")
