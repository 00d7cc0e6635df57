"""The rows of a comparison: a method with settings, and what is tried to tune it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from csg.errors import UsageError
from csg_train.methods import METHODS
from csg_train.recipe.schema import Recipe, parse_recipe

SHORTCUTS = {"ewc": ("l2", {"fisher": True}), "asg-l2o": ("asg", {"learned": True})}
ALL = ("none", "l2", "ewc", "si", "feature-l2", "asg", "asg-l2o", "ibn-a", "ibn-b", "drpc", "simclr", "moco-v2", "csg")
FACTORS = {"strength": (1.0, 0.1, 10.0), "learning rate": (1.0, 1 / 3, 3.0)}
RULE = (
    "each system gets three tries, of a quarter of the steps at four times the learning rates: its own weight times 1, "
    "1/10, 10, or, where it has none, the learning rates times 1, 1/3, 3; {score} on synthetic images kept from "
    "training decides ({kept}), and the first value stays unless another is better by more than a standard error; no "
    "real image is looked at"
)


@dataclass(frozen=True)
class System:
    """A method, its settings that differ from the recipe's, and the recipe's, dotted, that differ."""

    name: str
    method: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """A plain name for the system's files."""
        return folder_name(self.name)

    def recipe(self, base: Recipe, changes: dict[str, Any]) -> Recipe:
        """The base recipe with the system's method, its settings and `changes`, dotted."""
        tree = base.model_dump(mode="json")
        tree["method"] = self.method
        for name, value in (self.settings | changes).items():
            recipes_own = "." in name or name in Recipe.model_fields
            *parents, last = name.split(".") if recipes_own else ("methods", self.method, name)
            place = tree
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
        tree["methods"] = {self.method: tree["methods"].get(self.method, {})}
        return parse_recipe(tree, self.name)

    def tries(self, base: Recipe) -> list[dict[str, Any]]:
        """Changes to try, the recipe's own first."""
        strength = METHODS[self.method].strength
        if strength is None:
            rates = {name: getattr(base.optim, name) for name in ("lr_backbone", "lr_heads")}
            return [{f"optim.{n}": rate * factor for n, rate in rates.items()} for factor in FACTORS["learning rate"]]
        weight = self.recipe(base, {}).methods[self.method][strength]
        return [{strength: weight * factor} for factor in FACTORS["strength"]]


def folder_name(system: str) -> str:
    """A plain name for the files of a system, `csg:apool=false` for example."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", system).strip("-")


def parse_system(text: str) -> System:
    """A system by name, with settings behind colons: `csg:apool=false`, `l2:fisher=true`, `csg:augment.operations=0`.

    Raises:
        UsageError: there is no such system, or a setting is not of that form.
    """
    name, *settings = text.split(":")
    method, preset = SHORTCUTS.get(name, (name, {}))
    if method not in METHODS:
        raise UsageError(f"there is no system {name!r}", f"take some of {', '.join(ALL)}")
    chosen = dict(preset)
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"system {text!r}: {setting!r} is not of the form setting=value", "as in csg:apool=false")
        chosen[key] = yaml.safe_load(value)
    return System(text, method, chosen)


def choose(texts: Sequence[str] | None, styles: str | None) -> tuple[list[System], list[str]]:
    """The systems asked for, by default all, and those left out because they need style images.

    Raises:
        UsageError: an unknown system, one given twice, or drpc by name without styles.
    """
    systems = [parse_system(text) for text in texts or ALL]
    if len({system.folder for system in systems}) < len(systems):
        raise UsageError("a system is given twice", "give each once")
    if styles is not None:
        return [
            System(s.name, s.method, s.settings | {"styles": styles}) if s.method == "drpc" else s for s in systems
        ], []
    out = [s.name for s in systems if s.method == "drpc" and "styles" not in s.settings]
    if out and texts:
        raise UsageError("drpc restyles with images of yours", "name their folder: --styles DIR")
    return [s for s in systems if s.name not in out], out
