"""Classification: the images on which a network is most confident, and wrong."""

from __future__ import annotations

import numpy as np
from PIL import Image

from csg.images import load
from csg_train.pictures.grids import Cell, Grid
from csg_train.recipe import ClassificationRecipe
from csg_train.tasks import Images, Measurement

COLUMNS, ROWS = 6, 2


def mistakes_grid(images: Images, measurement: Measurement, recipe: ClassificationRecipe) -> Grid | None:
    """The most confident mistakes, as the network sees the images, with predicted and true class; None without any.

    Args:
        images: that were measured on.
        measurement: of the student.
        recipe: of the run.
    """
    true, predicted, confidences, indices = (
        measurement.true, measurement.predicted, measurement.confidences, measurement.indices,
    )  # fmt: skip
    assert true is not None
    assert predicted is not None
    assert confidences is not None
    assert indices is not None
    wrong = np.flatnonzero(true != predicted)
    if not len(wrong):
        return None
    worst = wrong[np.argsort(-confidences[wrong], kind="stable")][: COLUMNS * ROWS]
    names, spec = images.class_spec.names, recipe.data.image_input()
    cells = [
        Cell(
            Image.fromarray(load(images.paths[indices[place]], spec)),
            f"{confidences[place]:.0%} {names[predicted[place]]}\ntrue: {names[true[place]]}",
        )
        for place in worst
    ]
    title = f"The most confident of {len(wrong)} mistakes on {len(true)} images of {images.name}: predicted, and true"
    return Grid(title, [cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS)])
