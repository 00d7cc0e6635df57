"""Recipes of older format versions, brought to the current one with the meaning that they had."""

from __future__ import annotations

from typing import Any

from csg.errors import UsageError

OLD_MAGNITUDES, MAGNITUDES = 10, 30
CONTRASTIVE = ("csg", "simclr", "moco-v2")


def upgraded(tree: Any) -> Any:
    """A recipe's tree in the current format; a tree that is no recipe is returned as it is.

    Version 1 counted RandAugment's magnitude on a scale of 10, drew the scale of a crop from a list, had no warm-up
    and no `align_corners`, let no gradient through A-pool's attention, and counted `evaluate_every` in epochs.

    Raises:
        UsageError: `evaluate_every` is set, whose epochs can't be turned into steps here.
    """
    if not isinstance(tree, dict) or tree.get("version") != 1:
        return tree
    tree = {name: dict(group) if isinstance(group, dict) else group for name, group in tree.items()}
    if tree.pop("evaluate_every", 0):
        raise UsageError("evaluate_every counts steps since recipe version 2", "set it again, and version: 2")
    groups = [tree.setdefault(group, {}) for group in ("augment", "model", "optim", "methods")]
    if not all(isinstance(group, dict) for group in groups):
        return tree | {"version": 2}  # the schema says what is wrong
    augment, model, optim, methods = groups
    if tree.get("task") == "seg":
        scales = augment.pop("scales", (0.75, 1.25))
        augment["scale"] = (min(scales), max(scales))
        model["align_corners"] = False
    else:
        augment["magnitude"] = augment.get("magnitude", 6) * MAGNITUDES // OLD_MAGNITUDES
    optim["warm_up"] = 0
    for name in CONTRASTIVE:
        if isinstance(given := methods.get(name, {}), dict):
            methods[name] = {"attention": "detached"} | given
    return tree | {"version": 2}
