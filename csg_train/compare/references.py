"""Encoders that are no systems of a comparison, but stand beside them in `circle.png`, as in the paper's figure 2.

They are the untouched ImageNet encoder, and, if the user names real images to train on, a model trained on them.
"""

from __future__ import annotations

from pathlib import Path

from csg.console import log
from csg.errors import InputError, UsageError
from csg.files import absolute
from csg_train.compare.panels import IMAGENET, REAL_TRAIN, panel_file, read_panel, write_panel
from csg_train.compare.results import ENERGIES
from csg_train.compare.tuning import recipe_for
from csg_train.methods.spec import parse_method
from csg_train.recipe import Recipe, SegmentationData
from csg_train.tasks import TASKS, Images, predicting
from csg_train.training.command import build_method
from csg_train.training.environment import training_device


def keep_imagenet_panel(folder: Path, base: Recipe, images: Images) -> None:
    """Measure the energies of the untouched ImageNet encoder on the real images; nothing for random weights.

    Args:
        folder: of the comparison.
        base: the recipe that all methods share.
        images: the synthetic images.
    """
    file = panel_file(folder, IMAGENET)
    if file.is_file() or base.model.weights == "none":
        return
    log("measuring the untouched ImageNet encoder")
    task, device, classes = TASKS[base.task], training_device(), images.class_spec
    recipe = recipe_for(parse_method("none"), base)
    real = task.read_real(recipe, classes, recipe.data.real)
    with predicting(build_method(recipe, len(classes), device).student) as predict:
        measurement = task.measure(predict, classes, real, recipe, device=device)
    write_panel(file, real, measurement, title="ImageNet, untouched", score=None)


def real_train_recipe(base: Recipe, source: str, images: Images) -> Recipe:
    """The recipe of the model that is trained on real images, for as many steps as the others.

    Args:
        base: the recipe that all methods share.
        source: the real images to train on.
        images: the synthetic images.

    Raises:
        UsageError: some of the images are among those that are measured on.
        InputError: they have other classes than the synthetic ones, or can't be read.
    """
    changes = {
        "seed": 0,
        "evaluate_every": 0,
        "checkpoint": "last",
        "data.train": [str(absolute(Path(source)))],
        "data.holdout": 0.0,
        "optim.steps": base.schedule(len(images)),
    }
    if isinstance(base.data, SegmentationData):
        changes["data.labels"] = base.data.real_labels or base.data.labels
    recipe = recipe_for(parse_method("none:augment=true"), base, changes)
    task = TASKS[base.task]
    found = task.read_synthetic(recipe)
    if found.class_spec.names != images.class_spec.names:
        names = ", ".join(images.class_spec.names)
        raise InputError(f"the images of --real-train {source} have other classes", f"it needs {names}")
    measured = task.read_real(recipe, images.class_spec, recipe.data.real).paths
    if common := {path.resolve() for path in found.paths} & {path.resolve() for path in measured}:
        what = f"{len(common)} images of --real-train {source} are among those that are measured on"
        raise UsageError(what, "name other images; a list file can name a part of a folder")
    return recipe


def real_train_title(recipe: Recipe) -> str:
    """The title of the model's panel."""
    return f"trained on real images: {Path(recipe.data.train[0]).name}"


def notes(folder: Path, score: str) -> list[str]:
    """What the text below the table says about these encoders, where they were measured.

    Args:
        folder: of the comparison.
        score: what a table calls the main score.
    """
    said = []
    if (file := panel_file(folder, IMAGENET)).is_file():
        panel, _ = read_panel(file, None)
        energies = ", ".join(f"{name} {value:.3f}" for name, value in zip(ENERGIES, panel.energies, strict=False))
        said += [f"The untouched ImageNet encoder has {energies} on the real images."] if energies else []
    if (file := panel_file(folder, REAL_TRAIN)).is_file():
        panel, _ = read_panel(file, None)
        assert panel.score is not None
        what = f"the model {panel.name}"
        said.append(
            f"In circle.png, {what}, has seen real images: {score.removesuffix(' %')} {100 * panel.score:.1f} %."
        )
    return said
