"""`csg config show` and `csg config diff`: the settings of a recipe or a run, and in which ones two of them differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from csg.console import log, print_json, show_line, show_table
from csg_train.recipe import Recipe, load_recipe
from csg_train.recipe.catalogue import method_catalogue, recipe_settings
from csg_train.recipe.settings import by_dotted_name, with_images_of_its_own
from csg_train.training.run_folder import Run


def show_command(source: str, settings: Mapping[str, Any], as_json: bool) -> None:
    """Print a recipe with all its settings as a YAML file; a comment names the default of each one that differs.

    Args:
        source: name or file of the recipe.
        settings: changes of it, by dotted name.
        as_json: print JSON.

    Raises:
        UsageError, InputError: as `csg_train.recipe.load_recipe`.
    """
    recipe = load_recipe(source, with_images_of_its_own(settings))
    tree = recipe.model_dump(mode="json")
    changed = changed_settings(recipe)
    if as_json:
        print_json({"recipe": tree, "defaults_of_changed": changed})
        return
    for line in _yaml_lines(tree, changed):
        show_line(line)


def changed_settings(recipe: Recipe) -> dict[str, Any]:
    """The defaults of the settings that have another value, by dotted name."""
    methods = (method_catalogue(name, recipe.task) for name in recipe.methods)
    settings = (*recipe_settings(recipe.task), *(setting for method in methods for setting in method))
    values = dict(by_dotted_name(recipe.model_dump(mode="json")))
    return {
        one.name: one.default
        for one in settings
        if not one.required and values.get(one.name, one.default) != one.default
    }


def diff_command(first: str, second: str, as_json: bool) -> None:
    """Print the settings in which two runs or recipes differ.

    Args:
        first, second: a run folder each, or the name or file of a recipe.
        as_json: print JSON.

    Raises:
        UsageError, InputError: one of them can't be read.
    """
    trees = [dict(by_dotted_name(_read(source).model_dump(mode="json"))) for source in (first, second)]
    names = dict.fromkeys(name for tree in trees for name in tree)
    absent = object()
    differing = [name for name in names if len({repr(tree.get(name, absent)) for tree in trees}) > 1]
    if as_json:
        values = {
            name: {side: tree[name] for side, tree in zip(("first", "second"), trees, strict=True) if name in tree}
            for name in differing
        }
        print_json({"first": first, "second": second, "differences": values})
    elif differing:
        rows = [(name, *(_flow(tree[name]) if name in tree else "-" for tree in trees)) for name in differing]
        show_table("settings that differ", ("setting", first, second), rows)
    else:
        log(f"{first} and {second} have the same settings")


def _read(source: str) -> Recipe:
    return Run(Path(source)).recipe() if Path(source).is_dir() else load_recipe(source)


def _yaml_lines(
    tree: Mapping[str, Any], changed: Mapping[str, Any], prefix: str = "", indent: str = ""
) -> Iterator[str]:
    for key, value in tree.items():
        name = prefix + key
        if isinstance(value, dict) and value:
            yield f"{indent}{_flow(key)}:"
            yield from _yaml_lines(value, changed, f"{name}.", indent + "  ")
        else:
            comment = f"  # default: {_flow(changed[name])}" if name in changed else ""
            yield f"{indent}{_flow(key)}: {_flow(value)}{comment}"


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True)
    return text.removesuffix("...\n").strip()
