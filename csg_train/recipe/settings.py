"""Settings from the command line: dotted names and their values.

`optim.batch` is a setting of the recipe; `method.temperature` is a setting of the method that the run is trained with,
and stands for `methods.<method>.temperature`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from csg.errors import UsageError
from csg_train.methods.spec import parse_assignments

DEFAULT_METHOD = "csg"
METHOD_PREFIX = "method."


def parse_settings(assignments: Iterable[str]) -> dict[str, Any]:
    """The settings of `--set a.b=c` options; values are read as YAML.

    Raises:
        UsageError: a text is not of that form, or a setting is given twice.

    Example:
        >>> parse_settings(["optim.batch=32", "methods.csg.stages=[layer4]"])
        {'optim.batch': 32, 'methods.csg.stages': ['layer4']}
    """
    return parse_assignments(assignments, "--set", "for example --set optim.batch=32")


def merge_settings(*groups: Mapping[str, Any]) -> dict[str, Any]:
    """All settings in one dictionary.

    Raises:
        UsageError: two groups contain the same setting.
    """
    merged: dict[str, Any] = {}
    for name, value in (item for group in groups for item in group.items()):
        if name in merged:
            raise UsageError(f"setting {name} is given twice", "give it once")
        merged[name] = value
    return merged


def by_dotted_name(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a recipe's tree by dotted name; lists are values."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from by_dotted_name(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def apply_settings(tree: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Put settings into a recipe's tree, in place; those of the method last, since the method itself is one of them.

    Raises:
        UsageError: a name goes through a setting that is no group.
    """
    for name, value in settings.items():
        if not name.startswith(METHOD_PREFIX):
            _put(tree, name, value)
    method = tree.get("method", DEFAULT_METHOD)
    for name, value in settings.items():
        if name.startswith(METHOD_PREFIX):
            _put(tree, f"methods.{method}.{name.removeprefix(METHOD_PREFIX)}", value)


def _put(tree: dict[str, Any], name: str, value: Any) -> None:
    *groups, last = name.split(".")
    for group in groups:
        tree = tree.setdefault(group, {})
        if not isinstance(tree, dict):
            raise UsageError(f"{name}: {group} is not a group of settings", "the run's recipe.yaml lists all settings")
    tree[last] = value


def with_images_of_its_own(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, and no real images if they name other training images than the recipe, without real ones."""
    return ({"data.real": []} if "data.train" in settings else {}) | dict(settings)
