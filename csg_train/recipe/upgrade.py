"""Recipes of older format versions, brought to the current one with the meaning that they had."""

from __future__ import annotations

from typing import Any

from csg.errors import UsageError
from csg_train.recipe.augment_settings import MAGNITUDES
from csg_train.recipe.schema import VERSION

OLD_MAGNITUDES = 10
OLD_SETTINGS: dict[str, dict[str, Any]] = {
    **{name: {"augment": True} for name in ("none", "asg", "asg-l2o")},
    **{name: {"attention": "detached"} for name in ("csg", "simclr", "moco-v2")},
    "si": {"anchor": "last"},
    "feature-l2": {"weight": 0.1, "channels": "mean"},
    "drpc": {"versions": 1, "within": 0.0},
}
"""What version 1 did without a setting, where the settings of version 2 have other defaults, by method."""
OLD_SEGMENTATION: dict[str, dict[str, Any]] = {"asg": {"pooled": False}, "asg-l2o": {"pooled": False, "cap": None}}
"""The same in segmentation alone."""


def upgraded(tree: Any) -> Any:
    """A recipe's tree in the current format; a tree that is no recipe is returned as it is.

    Version 1 counted RandAugment's magnitude on a scale of 10, drew the scale of a crop from a list, had no warm-up
    and no `align_corners`, augmented the images of every method, had other forms of some (OLD_SETTINGS), and counted
    `evaluate_every` in epochs. The ranges of its RandAugment were torchvision's, which are gone: translations and
    posterize differ.

    Raises:
        UsageError: `evaluate_every` is set, whose epochs can't be turned into steps here.
    """
    if not isinstance(tree, dict) or tree.get("version") != 1:
        return tree
    try:
        return _from_version_1(tree) | {"version": VERSION}
    except (AttributeError, TypeError, ValueError):  # a value is of a wrong kind: the check of the recipe names it
        return tree | {"version": VERSION}


def _from_version_1(tree: dict[str, Any]) -> dict[str, Any]:
    tree = {name: dict(group) if isinstance(group, dict) else group for name, group in tree.items()}
    if tree.pop("evaluate_every", 0):
        raise UsageError("evaluate_every counts steps since recipe version 2", "set it again, and version: 2")
    augment, model, optim, methods = (tree.setdefault(group, {}) for group in ("augment", "model", "optim", "methods"))
    if tree.get("task") == "seg":
        scales = augment.pop("scales", (0.75, 1.25))
        augment["scale"] = (min(scales), max(scales))
        model["align_corners"] = False
    else:
        augment["magnitude"] = augment.get("magnitude", 6) * MAGNITUDES // OLD_MAGNITUDES
    optim["warm_up"] = 0
    for name, settings in OLD_SETTINGS.items():
        if name != "drpc" or name in methods:  # drpc has a setting without a default
            more = OLD_SEGMENTATION.get(name, {}) if tree.get("task") == "seg" else {}
            methods[name] = settings | more | methods.get(name, {})
    return tree
