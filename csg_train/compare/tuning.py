"""Which methods a comparison trains, with which recipes, and what is tried to tune each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from csg.errors import UsageError
from csg_train.methods import METHODS, load_method
from csg_train.methods.spec import MethodSpec, parse_method
from csg_train.recipe import Recipe, apply_settings, parse_recipe

WEIGHT_FACTORS = (1.0, 0.1, 10.0)
RATE_FACTORS = (1.0, 1 / 3, 3.0)
RULE = (
    "each method gets three tries, of a quarter of the steps at four times the learning rates: its own weight times 1, "
    "1/10, 10, or, if it has none, the learning rates times 1, 1/3, 3; {score} on synthetic images kept from "
    "training decides ({kept}), and the first value stays unless another is better by more than a standard error; "
    "no real image is used"
)


def choose(texts: Sequence[str] | None, base: Recipe) -> tuple[list[MethodSpec], list[MethodSpec]]:
    """The methods to compare, and those of the default that are left out because a setting without a default is unset.

    Args:
        texts: the methods as a user writes them; by default all of METHODS.
        base: the recipe that all of them share; it may hold the missing settings.

    Raises:
        UsageError: a method does not exist, has an invalid setting, or is given twice.
    """
    specs = [parse_method(text) for text in texts or METHODS]
    if len({spec.file_name for spec in specs}) < len(specs):
        raise UsageError("a method is given twice", "give each once")
    left_out = [] if texts else [spec for spec in specs if missing_settings(spec, base)]
    chosen = [spec for spec in specs if spec not in left_out]
    for spec in chosen:
        recipe_for(spec, base)  # raises before anything is trained
    return chosen, left_out


def missing_settings(spec: MethodSpec, base: Recipe) -> list[str]:
    """Settings of the method that have no default and no value."""
    given = spec.settings.keys() | base.methods.get(spec.name, {}).keys()
    fields = load_method(spec.name).Settings.model_fields
    return [name for name, field in fields.items() if field.is_required() and name not in given]


def recipe_for(spec: MethodSpec, base: Recipe, changes: dict[str, Any] | None = None) -> Recipe:
    """The shared recipe with a method, its settings, and `changes` by dotted name."""
    tree = base.model_dump(mode="json")
    tree["methods"] = {spec.name: tree["methods"].get(spec.name, {})}
    apply_settings(tree, spec.changes | (changes or {}))
    return parse_recipe(tree, spec.label)


def tries(spec: MethodSpec, base: Recipe) -> list[dict[str, Any]]:
    """Changes of the recipe to try, by dotted name; the first are its own values."""
    tuned = load_method(spec.name).tuned_setting
    if tuned is None:
        rates = {f"optim.{name}": getattr(base.optim, name) for name in ("lr_backbone", "lr_heads")}
        return [{name: rate * factor for name, rate in rates.items()} for factor in RATE_FACTORS]
    weight = recipe_for(spec, base).methods[spec.name][tuned]
    return [{f"methods.{spec.name}.{tuned}": weight * factor} for factor in WEIGHT_FACTORS]
