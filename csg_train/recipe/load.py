"""Recipes by name or file, changed by settings, checked."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from csg.console import log
from csg.did_you_mean import use_one_of
from csg.errors import InputError, UsageError, one_line
from csg.parsing import parse_yaml, read_yaml
from csg_train.methods import METHODS
from csg_train.methods.spec import UnknownMethodSetting
from csg_train.models.encoder_families import family_of, family_settings
from csg_train.recipe.model_settings import ClassificationModel
from csg_train.recipe.schema import VERSION, ClassificationRecipe, Recipe, SegmentationRecipe
from csg_train.recipe.settings import DEFAULT_METHOD, apply_settings
from csg_train.recipe.suggest import unknown_method_setting, unknown_setting
from csg_train.recipe.upgrade import upgraded

DEFAULT_BACKBONE = str(ClassificationModel().backbone)
NO_SETTINGS: Mapping[str, Any] = {}
RECIPE: TypeAdapter[Recipe] = TypeAdapter(
    Annotated[ClassificationRecipe | SegmentationRecipe, Field(discriminator="task")]
)
"""Checks a recipe of either task."""


def recipe_names() -> list[str]:
    """The names of the recipes that come with csg, in alphabetical order."""
    files = resources.files("csg_train.recipe").iterdir()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


def load_recipe(source: str, settings: Mapping[str, Any] = NO_SETTINGS) -> Recipe:
    """A recipe by name or file, with settings changed.

    Args:
        source: one of `recipe_names()`, or a YAML file.
        settings: values by dotted name; `method.x` is setting x of the recipe's method (`csg_train.recipe.settings`).

    Raises:
        UsageError: there is no such recipe or setting, or a setting has an invalid value.
        InputError: the file is not a recipe.

    Example:
        >>> load_recipe("digits", {"optim.epochs": 2, "method.temperature": 0.2}).methods["csg"]["temperature"]
        0.2
    """
    tree = _read(source)
    brought = brought_by_backbone(tree, settings)
    say_brought(settings, brought)
    apply_settings(tree, brought | dict(settings))
    return parse_recipe(tree, f"recipe {source}")


def brought_by_backbone(tree: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that take the place of a recipe's own for a backbone of a family that is trained in another way.

    Args:
        tree: of the recipe.
        settings: values by dotted name; the backbone may be among them. What they set themselves is left out.
    """
    new, model = settings.get("model.backbone"), tree.get("model")
    old = (model.get("backbone") if isinstance(model, dict) else None) or DEFAULT_BACKBONE
    if not isinstance(new, str) or not isinstance(old, str):
        return {}
    return {name: value for name, value in family_settings(old, new).items() if name not in settings}


def say_brought(settings: Mapping[str, Any], brought: Mapping[str, Any]) -> None:
    """Say in a line which values a backbone has brought."""
    if brought:
        new, values = settings["model.backbone"], ", ".join(f"{name}={value}" for name, value in brought.items())
        log(f"{new} is trained with the defaults of its family, {family_of(new)}, not the recipe's own: {values}")


def parse_recipe(tree: Any, where: str) -> Recipe:
    """A recipe from its tree of settings.

    Args:
        tree: what the YAML or JSON text holds.
        where: the origin of the tree, for the error.

    Raises:
        UsageError: names the first setting that is unknown or has an invalid value.
    """
    if isinstance(tree, dict) and isinstance(version := tree.get("version"), int) and version > VERSION:
        raise UsageError(f"{where} has format version {version}, this csg reads {VERSION}", "update csg")
    try:
        tree = upgraded(tree)
        return RECIPE.validate_python(tree)
    except ValidationError as error:
        wrong = _setting_error(error, tree)
    except UnknownMethodSetting as error:
        wrong = unknown_method_setting(error.setting, tree["task"], error.method)
    except UsageError as error:
        wrong = error
    raise UsageError(f"{where}: {wrong.message}", wrong.hint) from None


def _setting_error(error: ValidationError, tree: Any) -> UsageError:
    """The first error of a validation: the setting's name, and what is wrong or may be meant."""
    first = error.errors()[0]
    parts = [str(part) for part in first["loc"][1:]]  # the first part is the task
    if first["type"] != "extra_forbidden":
        name, message = one_line(".".join(parts), 100), first["msg"].removeprefix("Value error, ")
        return UsageError(f"{name}: {message}" if name else message, "correct the recipe, the option or --set")
    inner = first["input"]
    while isinstance(inner, dict) and inner:  # a whole group is unknown: its first setting is named
        parts.append(str(next(iter(inner))))
        inner = inner[parts[-1]]
    method = tree.get("method")
    name = one_line(".".join(parts), 100)
    return unknown_setting(name, tree["task"], method if method in list(METHODS) else DEFAULT_METHOD)


def _read(source: str) -> dict[str, Any]:
    if source in recipe_names():
        tree = parse_yaml((resources.files("csg_train.recipe") / f"{source}.yaml").read_bytes())
    elif Path(source).is_file():
        tree = read_yaml(Path(source), f"recipe {source}")
    else:
        raise UsageError(f"there is no recipe {source!r}", use_one_of(source, recipe_names(), ", or a YAML file"))
    if not isinstance(tree, dict):
        raise InputError(f"recipe {source} contains no settings", "start from one of csg's own recipes")
    return tree
