"""What a shell completes for an option; every list is read where it is kept, when it is needed.

Each function takes what has been typed of the value, and returns the values that begin with it.
"""

from __future__ import annotations

from collections.abc import Iterable


def _matching(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def methods(incomplete: str) -> list[str]:
    """The methods, those of other packages included."""
    from csg_train.methods import METHODS

    return _matching(METHODS, incomplete)


def backbones(incomplete: str) -> list[str]:
    """The backbones of torchvision."""
    from csg_train.models.backbones import BACKBONES

    return _matching(BACKBONES, incomplete)


def label_sets(incomplete: str) -> list[str]:
    """The label sets that come with csg."""
    from csg.datasets.label_sets import label_set_names

    return _matching(label_set_names(), incomplete)
