"""All pictures of a run that has ended, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from csg.console import log
from csg.datasets.segmentation import SegmentationDataset
from csg.errors import one_line
from csg_train.methods.base import Method
from csg_train.pictures.curves import Points, run_curves_figure
from csg_train.pictures.grids import Grid, grid_figure
from csg_train.pictures.mistakes import mistakes_grid
from csg_train.pictures.plots import confusion_side, draw_confusion, figure_png, wrapped
from csg_train.pictures.samples import samples_grid
from csg_train.pictures.scenes import Scenes
from csg_train.recipe import ClassificationRecipe, Recipe, SegmentationRecipe
from csg_train.tasks import TASKS, Images, Measurement


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What the pictures of a run are drawn from."""

    recipe: Recipe
    """Its settings."""
    points: Points
    """Its metrics."""
    images: Images
    """The images that it was trained on."""
    method: Method
    """The method, with the student that was chosen."""
    measured: tuple[Images, Measurement] | None = None
    """The images that the student was measured on, real ones if there are any, and what was found; None without any."""


def run_pictures(run: Ended) -> dict[str, bytes]:
    """The pictures of a run as PNG files by name: samples, curves, confusion, mistakes, and for segmentation scenes.

    One without content is left out, such as mistakes of a student that makes none. One that can't be drawn is left out
    too, and the log says why: the training is done, and nothing may take its result away.
    """
    drawings: dict[str, Callable[[], Figure | Grid | None]] = {
        "samples": lambda: samples_grid(run.images, run.recipe, run.method),
        "curves": lambda: run_curves_figure(run.points, tuple(TASKS[run.recipe.task].scores)),
    }
    if run.measured:
        images, measurement = run.measured
        drawings["confusion"] = lambda: _confusion_figure(images, measurement)
        drawings |= _of_images(run, images, measurement)
    found = {}
    for name, draw in drawings.items():
        try:
            drawn = draw()
            if drawn is not None:
                found[name] = figure_png(grid_figure(drawn) if isinstance(drawn, Grid) else drawn)
        except Exception as error:
            log(f"warning: the picture {name} of the run can't be drawn: {one_line(error)}")
    return found


def _of_images(run: Ended, images: Images, measurement: Measurement) -> dict[str, Callable[[], Figure | Grid | None]]:
    """The pictures that show images that were measured on."""
    recipe = run.recipe
    if isinstance(recipe, ClassificationRecipe):
        return {"mistakes": lambda: mistakes_grid(images, measurement, recipe)}
    assert isinstance(recipe, SegmentationRecipe)
    assert isinstance(images, SegmentationDataset)
    scenes = Scenes(images, measurement, recipe, run.method.student, run.images.class_spec)
    return {"scenes": scenes.spread, "mistakes": scenes.worst}


def _confusion_figure(images: Images, measurement: Measurement) -> Figure:
    classes = images.class_spec.names
    side = confusion_side(len(classes))
    figure = Figure(figsize=(side + 1.5, side + 1), layout="constrained")
    axis = figure.subplots()
    draw_confusion(axis, measurement.confusion, classes)
    axis.set_xlabel("predicted, in % of the true class", fontsize=8)
    axis.set_ylabel("true", fontsize=8)
    figure.suptitle(wrapped(f"{images.name}: {measurement.evaluation.headline}", int(side * 13)), fontsize=8)
    return figure
