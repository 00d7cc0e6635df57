"""What a shell completes for an option; every list is read where it is kept, when it is needed.

Each function takes what has been typed of the value, and returns the values that begin with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args


def _matching(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def methods(incomplete: str) -> list[str]:
    """The methods, those of other packages included."""
    from csg_train.methods import METHODS

    return _matching(METHODS, incomplete)


def recipes(incomplete: str) -> list[str]:
    """The recipes that come with csg."""
    from csg_train.recipe import recipe_names

    return _matching(recipe_names(), incomplete)


def settings(incomplete: str) -> list[str]:
    """The settings of a recipe, as `--set` takes them."""
    from csg_train.recipe import setting_names

    return _matching([f"{name}=" for name in setting_names()], incomplete)


def backbones(incomplete: str) -> list[str]:
    """The backbones of torchvision."""
    from csg_train.models.backbones import BACKBONES

    return _matching(BACKBONES, incomplete)


def training_precisions(incomplete: str) -> list[str]:
    """The precisions of a training."""
    from csg_train.recipe import Recipe

    return _matching(get_args(Recipe.model_fields["precision"].annotation), incomplete)


def precisions(incomplete: str) -> list[str]:
    """The precisions of `csg export`."""
    from csg_export.precisions import PRECISIONS

    return _matching(PRECISIONS, incomplete)


def trackers(incomplete: str) -> list[str]:
    """The trackers of a run, those of other packages included."""
    from csg_train.training.trackers import TRACKERS

    return _matching(TRACKERS, incomplete)


def label_sets(incomplete: str) -> list[str]:
    """The label sets that come with csg."""
    from csg.datasets.label_sets import label_set_names

    return _matching(label_set_names(), incomplete)
