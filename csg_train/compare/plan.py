"""The plan of a comparison (`plan.json`): what its folder was started with, and what later calls must not change."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from csg.errors import UsageError
from csg.files import LOCK, atomic_write, is_empty
from csg.records import Record, read_record
from csg.strict_json import json_text
from csg_train.methods.spec import method_settings
from csg_train.recipe import Recipe, parse_recipe
from csg_train.training.environment import training_device
from csg_train.training.optimizer import precision_for

PLAN = "plan.json"


class Plan(Record):
    """What a comparison was started with.

    It contains no paths, so that the comparison can be continued on another machine.
    """

    version: Literal[1] = 1
    """Version of the format."""
    tune: bool
    """Whether each method is tuned."""
    images: str
    """Hash of the synthetic images."""
    recipe: dict[str, Any]
    """The settings of the recipe that all methods share; of paths the names alone."""


def keep_plan(folder: Path, base: Recipe, tune: bool, fingerprint: str) -> Recipe:
    """Write the plan of a new comparison, or check that an earlier one is continued with the same.

    Args:
        folder: of the comparison.
        base: the recipe that all methods share.
        tune: whether each method is tuned.
        fingerprint: hash of the synthetic images.

    Returns:
        The recipe with the precision that the comparison was started with, instead of `auto`.

    Raises:
        UsageError: the folder is not a comparison, or it was started with another recipe, other images or another
            choice of tuning.
        InputError: the plan is damaged.
    """
    file = folder / PLAN
    if not file.is_file():
        if folder.exists() and not is_empty(folder) and not _only_runs(folder):
            raise UsageError(f"{folder} is not the folder of a comparison", "name another with --out")
        base = base.model_copy(update={"precision": precision_for(base.precision, training_device()).name})
        plan = Plan(tune=tune, images=fingerprint, recipe=without_folders(base))
        atomic_write(file, f"{json_text(plan.model_dump(mode='json'))}\n".encode())
        return base
    plan = read_record(file, Plan, "restore it, or name another folder with --out")
    if plan.tune != tune:
        option = "--tune" if plan.tune else "--no-tune"
        raise UsageError(f"{folder} was started with {option}", "use the same option, or name another folder by --out")
    started = parse_recipe(plan.recipe, str(file))
    if base.precision == "auto":
        base = base.model_copy(update={"precision": started.precision})
    if without_folders(base) != without_folders(started):
        raise UsageError(f"{folder} was started with another recipe", "name another folder with --out")
    if fingerprint != plan.images:
        raise UsageError(f"{folder} was started with other synthetic images", "name another folder with --out")
    return base


def _only_runs(folder: Path) -> bool:
    """Whether a folder holds nothing but runs that were trained beforehand."""
    return {entry.name for entry in folder.iterdir()} <= {LOCK, "runs", "tune"}


def without_folders(recipe: Recipe) -> dict[str, Any]:
    """The settings of a recipe without the number of loader processes; of paths the names alone."""
    tree = recipe.model_dump(mode="json")
    data, model = tree["data"], tree["model"]
    del data["workers"]  # as many as the machine has cores; it changes no result
    for name in ("train", "real"):
        data[name] = [Path(source).name for source in data[name]]
    for group, name in ((data, "labels"), (data, "real_labels"), (model, "weights")):
        if group.get(name):
            group[name] = Path(group[name]).name
    for method, settings in tree["methods"].items():
        paths = method_settings(method, recipe.task, settings).paths()
        settings |= {name: path.name for name, path in paths.items()}
    return tree
