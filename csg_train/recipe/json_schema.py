"""The JSON Schema of a recipe file, for editors."""

from __future__ import annotations

from typing import Any

from csg_train.methods.settings import settings_class
from csg_train.recipe.catalogue import RECIPES, Task, usable_methods
from csg_train.recipe.load import RECIPE

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the recipes of both tasks, with the settings of every method.

    A recipe that it accepts may still be refused: it does not know what settings have to do with each other.
    """
    defs = RECIPE.json_schema()["$defs"]
    for task, kind in RECIPES.items():
        defs[kind.__name__]["properties"]["methods"] |= _methods_schema(task)
    return {
        "$schema": DIALECT,
        "title": "csg recipe",
        "type": "object",
        "required": ["task"],
        "properties": {"task": {"enum": list(RECIPES)}},
        "allOf": [_if_task(task, f"#/$defs/{kind.__name__}") for task, kind in RECIPES.items()],
        "$defs": defs,
    }


def _if_task(task: Task, reference: str) -> dict[str, Any]:
    """The schema of a task for recipes of that task: errors name the wrong setting, which those of `oneOf` do not."""
    return {
        "if": {"required": ["task"], "properties": {"task": {"const": task}}},
        "then": {"$ref": reference},
    }


def _methods_schema(task: Task) -> dict[str, Any]:
    """The property `methods`: an object for each method."""
    properties = {}
    for name in usable_methods():
        kind = settings_class(name)
        properties[name] = schema = kind.model_json_schema()
        for setting, default in (kind.segmentation_defaults if task == "seg" else {}).items():
            schema["properties"][setting]["default"] = default
    return {"properties": properties, "additionalProperties": False}
