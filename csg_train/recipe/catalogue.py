"""All settings: what `csg config`, the reference in the docs and the hints for unknown names are made from.

Types, ranges and descriptions come from the JSON schemas of the recipe's and the methods' records.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel

from csg.errors import UsageError
from csg_train.methods import METHODS
from csg_train.methods.settings import settings_class
from csg_train.recipe.schema import ClassificationRecipe, SegmentationRecipe

Task = Literal["cls", "seg"]
RECIPES: dict[Task, type[ClassificationRecipe] | type[SegmentationRecipe]] = {
    "cls": ClassificationRecipe,
    "seg": SegmentationRecipe,
}
REQUIRED = "required"
_TYPES = {"boolean": "true or false", "string": "text", "object": "settings", "null": "null"}


@dataclass(frozen=True)
class Setting:
    """A setting of a recipe or of a method."""

    name: str
    """Its dotted name, as `--set` takes it: `optim.batch`, `methods.csg.temperature`."""
    tasks: tuple[Task, ...]
    """The tasks whose recipes have it."""
    type: str
    """What values it takes: `integer`, `text or null`, `one of sum, mean`."""
    choices: tuple[str, ...]
    """The values, if they are few, as YAML has them."""
    range: str
    """The limits of a number, such as `at least 1`; empty if there are none."""
    unit: str
    """What a number counts, such as `pixels`; empty if it has no unit."""
    default: Any
    """The default, as JSON has it; None also for a setting that must be given."""
    required: bool
    """Whether it has no default."""
    description: str
    """What it is, on one line."""

    @property
    def default_text(self) -> str:
        """The default as it stands in a recipe."""
        return REQUIRED if self.required else json.dumps(self.default, ensure_ascii=False)

    @property
    def values(self) -> str:
        """Type, range and unit in a few words: `integer, at least 1, images`."""
        return ", ".join(filter(None, (self.type, self.range, self.unit)))


@functools.cache
def all_settings() -> tuple[Setting, ...]:
    """The settings of both tasks and of every method; one that both tasks have alike is listed once."""
    found: dict[str, list[Setting]] = {}
    for task in RECIPES:
        for setting in task_settings(task):
            alike = found.setdefault(setting.name, [])
            if alike and replace(alike[-1], tasks=()) == replace(setting, tasks=()):
                alike[-1] = replace(setting, tasks=(*alike[-1].tasks, task))
            else:
                alike.append(setting)
    groups = dict.fromkeys(_group(name) for name in found)
    return tuple(one for group in groups for name, alike in found.items() if _group(name) == group for one in alike)


@functools.cache
def usable_methods() -> tuple[str, ...]:
    """The methods, without those of packages that can't be imported."""
    found = []
    for name in METHODS:
        with suppress(UsageError):
            settings_class(name)
            found.append(name)
    return tuple(found)


@functools.cache
def task_settings(task: Task) -> tuple[Setting, ...]:
    """The settings of a task's recipes, and of every method."""
    methods = (method_catalogue(name, task) for name in usable_methods())
    return (*recipe_settings(task), *(setting for method in methods for setting in method))


@functools.cache
def recipe_settings(task: Task) -> tuple[Setting, ...]:
    """The settings of a task's recipes, without those of methods."""
    return tuple(one for one in _settings(RECIPES[task], task) if one.name != "methods")


def method_catalogue(method: str, task: Task) -> tuple[Setting, ...]:
    """The settings of a method, with the defaults of a task.

    Raises:
        UsageError: there is no such method, or the package that defines it is broken.
    """
    kind = settings_class(method)
    defaults = kind.segmentation_defaults if task == "seg" else {}
    return tuple(_settings(kind, task, f"methods.{method}.", defaults))


def _group(name: str) -> str:
    return name.rpartition(".")[0]


def _settings(
    record: type[BaseModel], task: Task, prefix: str = "", defaults: Mapping[str, Any] | None = None
) -> Iterator[Setting]:
    schema = record.model_json_schema()
    for name, field in record.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _settings(kind, task, f"{prefix}{name}.")
            continue
        found = schema["properties"][name]
        type_, range_ = _type_and_range(found)
        yield Setting(
            name=prefix + name,
            tasks=(task,),
            type=type_,
            choices=_choices(found),
            range=range_,
            unit=_unit(found),
            default=(defaults or {}).get(name, found.get("default")),
            required=field.is_required(),
            description=" ".join((field.description or "").split()),
        )


def _type_and_range(schema: Mapping[str, Any]) -> tuple[str, str]:
    """What a JSON schema allows, in words."""
    if "anyOf" in schema:
        parts = [_type_and_range(one) for one in schema["anyOf"]]
        return " or ".join(type_ for type_, _ in parts), next((limits for _, limits in parts if limits), "")
    if "const" in schema:
        return json.dumps(schema["const"]), ""
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}", ""
    if "prefixItems" in schema:
        type_, limits = _type_and_range(schema["prefixItems"][0])
        return f"{len(schema['prefixItems'])} {type_}s", limits
    if schema.get("type") == "array":
        inner, _ = _type_and_range(schema["items"])
        return f"list of {inner.removeprefix('one of ')}", "at least one" if schema.get("minItems") else ""
    type_ = schema.get("type", "text")
    return _TYPES.get(type_, type_), _range(schema)


def _choices(schema: Mapping[str, Any]) -> tuple[str, ...]:
    if schema.get("type") == "boolean":
        return ("true", "false")
    return tuple(map(str, schema.get("enum", ())))


def _unit(schema: Mapping[str, Any]) -> str:
    inner = (*schema.get("anyOf", ()), *schema.get("prefixItems", ()))
    return str(schema.get("unit") or next((one["unit"] for one in inner if "unit" in one), ""))


def _range(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    multiple = f"multiple of {schema['multipleOf']}" if "multipleOf" in schema else None
    if low is not None and high is not None:
        limits = f"{low} to {high}"
    else:
        words = (("at least", low), ("above", above), ("at most", high), ("below", below))
        limits = " and ".join(f"{word} {number}" for word, number in words if number is not None)
    return ", ".join(filter(None, (limits, multiple)))
