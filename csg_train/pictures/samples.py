"""Training images as the network sees them: every view that the method uses, after augmentation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from csg.datasets.check import sample_of
from csg.datasets.classification import ClassificationDataset
from csg.overlays import overlay
from csg_train.methods.base import Method
from csg_train.pictures.grids import Cell, Grid, shown_classes
from csg_train.recipe import Recipe
from csg_train.tasks import TASKS, Images

COLUMNS = 6


def samples_grid(images: Images, recipe: Recipe, method: Method) -> Grid | None:
    """Views of a few training images, spread over the classes, in the first pass; None if none can be read.

    Args:
        images: the training images.
        recipe: of the run.
        method: that is trained.
    """
    views = TASKS[recipe.task].views(images, recipe, method.views, augmented=method.augmented)
    found = [(index, views[0, index]) for index in _spread(images, COLUMNS)]
    items = [(index, item) for index, item in found if not isinstance(item, str)]
    if not items:
        return None
    names = ("q-view", "k-view") if method.views == 2 else ("view",) * method.views
    rows = [[Cell(_image(item[0][view])) for _, item in items] for view in range(method.views)]
    title = f"Training images of {images.name} as the network sees them" + (
        "" if method.augmented else ", without augmentation"
    )
    classes = images.class_spec
    if isinstance(images, ClassificationDataset):
        captions = [classes.names[images.labels[index]] for index, _ in items]
        rows[0] = [Cell(cell.image, caption) for cell, caption in zip(rows[0], captions, strict=True)]
        return Grid(title, rows, names)
    maps = [item[1].numpy() for _, item in items]
    rows.append(
        [Cell(overlay(cell.image, labels, classes.colours)) for cell, labels in zip(rows[0], maps, strict=True)]
    )
    return Grid(title, rows, (*names, "labels"), shown_classes(classes.names, classes.colours, maps))


def _spread(images: Images, count: int) -> Sequence[int]:
    """The indices of `count` images, evenly spread over the classes, or over the images of a segmenter."""
    order = np.arange(len(images))
    if isinstance(images, ClassificationDataset):
        order = np.argsort(images.labels, kind="stable")
    return [int(index) for index in order[sample_of(len(order), count)]]


def _image(view: Tensor) -> Image.Image:
    return Image.fromarray(view.numpy())
