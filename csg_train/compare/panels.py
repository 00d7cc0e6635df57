"""What the figures of embeddings need of each method, kept in `panels/`, and the figures drawn from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from csg.errors import InputError
from csg.files import atomic_write
from csg.npz import DAMAGED, npz_bytes
from csg_train.compare.figures import Panel, angles, circle_figure, confusion_figure
from csg_train.compare.results import ENERGIES
from csg_train.energy import hyperspherical_energy
from csg_train.methods.spec import file_name
from csg_train.pictures.plots import save_figure
from csg_train.tasks import TASKS, Images, Measurement
from csg_train.training.embed import measure_run
from csg_train.training.run_folder import Run

PANELS = "panels"
IMAGENET, REAL_TRAIN = "_imagenet", "_real_train"
"""Panels of encoders that are no systems of the comparison; no method's file name contains `_`."""


def keep_panel(folder: Path, name: str, title: str, run: Run) -> None:
    """Measure a run, and write its panel.

    Args:
        folder: of the comparison.
        name: of the file.
        title: of the panel, if it is not a system's.
        run: a finished run that was measured on real images.
    """
    images, measurement = measure_run(run)
    score = getattr(measurement.evaluation, next(iter(TASKS[run.recipe().task].scores)))
    write_panel(panel_file(folder, name), images, measurement, title=title, score=score)


def write_panel(file: Path, images: Images, measurement: Measurement, *, title: str, score: float | None) -> None:
    """Write a panel; without a score, without confusion matrix too."""
    energy = hyperspherical_energy(measurement.embeddings)
    predicted = {} if score is None else {"score": np.array(score), "confusion": measurement.confusion}
    arrays = {
        "angles": angles(measurement.embeddings).astype(np.float32),
        "true": np.array([], np.int64) if measurement.true is None else measurement.true,
        "classes": np.array(images.class_spec.names),
        "energies": np.array([getattr(energy, name) for name in ENERGIES] if energy else []),
        "title": np.array(title),
        **predicted,
    }
    atomic_write(file, npz_bytes(arrays))


def panel_file(folder: Path, name: str) -> Path:
    """The file of a panel in a comparison's folder."""
    return folder / PANELS / f"{name}.npz"


def read_panel(file: Path, label: str | None) -> tuple[Panel, tuple[str, ...]]:
    """A panel, and the classes.

    Args:
        file: of the panel.
        label: of its system; None: the title that the file holds.

    Raises:
        InputError: the file is damaged.
    """
    try:
        with np.load(file) as arrays:
            classes = tuple(map(str, arrays["classes"].tolist()))
            panel = Panel(
                name=label if label is not None else str(arrays["title"]),
                score=float(arrays["score"]) if "score" in arrays else None,
                angles=arrays["angles"],
                true=arrays["true"] if len(arrays["true"]) else None,
                confusion=arrays["confusion"] if "score" in arrays else None,
                energies=tuple(map(float, arrays["energies"])),
            )
        _check(panel, len(classes))
    except DAMAGED:
        hint = "restore it, or remove it: its method is then left out of the figures"
        raise InputError(f"{file} is damaged", hint) from None
    return panel, classes


def _check(panel: Panel, classes: int) -> None:
    """Raise ValueError if the arrays of a panel do not fit together."""
    numbers = [panel.angles, np.array([panel.score or 0, *panel.energies])]
    fits = panel.angles.ndim == 1 and len(panel.angles) > 0
    if panel.confusion is not None:
        numbers.append(panel.confusion)
        fits = fits and panel.confusion.shape == (classes, classes)
    if not (fits and all(np.isfinite(array).all() for array in numbers)):
        raise ValueError
    if panel.true is not None and not (len(panel.true) == len(panel.angles) and set(panel.true) <= set(range(classes))):
        raise ValueError


def draw_panels(folder: Path, labels: Sequence[str]) -> None:
    """Draw `circle.png` and `confusion.png` of the methods that have a panel, and of the encoders beside them.

    Args:
        folder: of the comparison.
        labels: of the methods, in the order of the table.

    Raises:
        InputError: a panel is damaged, or has other classes than those before it.
    """
    files = [(panel_file(folder, file_name(label)), label) for label in labels]
    named = [(panel_file(folder, IMAGENET), None), *files, (panel_file(folder, REAL_TRAIN), None)]
    panels = list[Panel]()
    classes: tuple[str, ...] = ()
    for file, label in named:
        if file.is_file():
            panel, found = read_panel(file, label)
            if panels and found != classes:
                raise InputError(f"{file} has other classes than the panels before it", "restore it, or remove it")
            panels.append(panel)
            classes = found
    if panels:
        save_figure(circle_figure(panels, classes), folder / "circle.png")
    if measured := [panel for panel in panels if panel.confusion is not None]:
        save_figure(confusion_figure(measured, classes), folder / "confusion.png")
