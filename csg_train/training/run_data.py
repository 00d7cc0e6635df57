"""The images of a run: at the places that its recipe names, or at new ones if they have moved.

A run records fingerprints of its images when it starts (csg_train/training/environment.py). Whoever reads them again
gets the same images or an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from csg.console import log
from csg.errors import InputError, UsageError
from csg_train.recipe import Recipe, apply_settings, parse_recipe
from csg_train.tasks import TASKS, Images
from csg_train.training.run_files import RECIPE
from csg_train.training.run_folder import Run

CHANGEABLE = (
    "data.train",
    "data.real",
    "data.labels",
    "data.real_labels",
    "data.on_unreadable",
    "data.workers",
    "model.weights",
)
"""Settings that may differ when a run is resumed: where its files are, and how they are read."""


@dataclass(frozen=True)
class RunImages:
    """The images of a run."""

    training: Images
    """Synthetic images to train on."""
    held_out: Images | None
    """Synthetic images that are kept from training; the run is measured on them."""
    real: Images | None
    """Real images; the run is measured on them."""


def read_images(recipe: Recipe) -> RunImages:
    """The images of a recipe.

    Raises:
        UsageError: all images or none are held out.
        InputError: a source can't be read, or the classes of the real images are others.
    """
    task, sources, held_out = TASKS[recipe.task], recipe.data.real, None
    images = with_notes(task.read_synthetic(recipe))
    real = with_notes(task.read_real(recipe, images.class_spec, sources)) if sources else None
    if recipe.data.holdout:
        order = np.random.default_rng(0).permutation(len(images))  # the same images for every method and seed
        count = round(recipe.data.holdout * len(images))
        if not 0 < count < len(images):
            what = f"data.holdout={recipe.data.holdout:g} keeps {count} of {len(images)} images from training"
            raise UsageError(what, "choose a share that leaves images on both sides")
        held_out = images.subset(order[:count], f"{images.name}, held out")
        images = images.subset(order[count:], images.name)
    return RunImages(images, held_out, real)


def with_notes(images: Images) -> Images:
    """The images, after printing what a user has to know about how they were read."""
    for note in images.notes:
        log(f"{images.name}: {note}")
    return images


def check_images(run: Run, images: RunImages) -> None:
    """Raise InputError if these are not the images that the recorded run was started with."""
    recorded = run.environment()
    _check("training", run, recorded.data_fingerprint, images.training)
    if images.real is not None and recorded.real_fingerprint:
        _check("real", run, recorded.real_fingerprint, images.real)


def check_weights(run: Run, fingerprint: str | None) -> None:
    """Raise InputError if the ImageNet weights are not those that the run was started with.

    Args:
        run: a recorded run.
        fingerprint: of the weights; None for random ones.
    """
    recorded = run.environment().weights_fingerprint
    if recorded and recorded != fingerprint:
        raise InputError(
            f"the ImageNet weights are not those that run {run.path} was started with ({recorded[:12]})",
            "name the same weights with --weights FILE",
        )


def _check(kind: str, run: Run, recorded: str, images: Images) -> None:
    if images.fingerprint() != recorded:
        raise InputError(
            f"the {kind} images {images.name} are not those that run {run.path} was started with ({recorded[:12]})",
            "restore them, name the folder with the same files, or start a new run",
        )


def training_images(run: Run, sources: Sequence[str] = ()) -> Images:
    """The images that a run was trained on, without those held out.

    Args:
        run: a recorded run.
        sources: where the images are now; none: where the recipe says.

    Raises:
        InputError: they can't be read, or are not those that the run was started with.
    """
    recipe = moved(run, {"data.train": list(sources)} if sources else {})
    require_sources(run, recipe.data.train, "training", "--data")
    data = recipe.data.model_copy(update={"real": ()})
    images = read_images(recipe.model_copy(update={"data": data})).training
    _check("training", run, run.environment().data_fingerprint, images)
    return images


def real_images(run: Run, sources: Sequence[str] = (), option: str = "--real-data") -> Images | None:
    """The real images that a run was measured on; None if its recipe has none and none are named.

    Args:
        run: a recorded run.
        sources: where the images are now; none: where the recipe says.
        option: that names them, for an error.

    Raises:
        InputError: they can't be read, or are not those that the run was started with.
    """
    recipe = moved(run, {"data.real": list(sources)} if sources else {})
    if not recipe.data.real:
        return None
    require_sources(run, recipe.data.real, "real", option)
    images = with_notes(TASKS[recipe.task].read_real(recipe, run.class_spec(), recipe.data.real))
    if recorded := run.environment().real_fingerprint:
        _check("real", run, recorded, images)
    return images


def moved(run: Run, settings: Mapping[str, Any]) -> Recipe:
    """The recipe of a run with some of its files at other places.

    Args:
        run: the run.
        settings: values by dotted name, of CHANGEABLE.

    Raises:
        UsageError: another setting is named, or a value is invalid.
    """
    other = [name for name in settings if name not in CHANGEABLE]
    if other:
        raise UsageError(
            f"a run continues with its own recipe: {other[0]} can't be changed",
            "give only --data, --real-data, --labels, --weights, or --set of data.on_unreadable or data.workers",
        )
    if not settings:
        return run.recipe()
    tree = run.recipe().model_dump(mode="json")
    apply_settings(tree, settings)
    return parse_recipe(tree, str(run.path / RECIPE))


def require_sources(run: Run, sources: Sequence[str], kind: str, option: str) -> None:
    """Raise InputError if images of a run are no longer where they were, with the option that names the new place."""
    embedded = {task.embedded for task in TASKS.values()}
    for source in sources:
        if source not in embedded and not Path(source).exists():
            raise InputError(
                f"the {kind} images of run {run.path} are not at {source}", f"name their place with {option}"
            )
