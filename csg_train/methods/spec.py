"""A method with settings as a user writes it: `csg`, `csg:temperature=0.2`, `csg:apool=false:augment.operations=0`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from csg.errors import UsageError
from csg.parsing import parse_yaml
from csg_train.methods import load_method

if TYPE_CHECKING:
    from csg_train.methods.base import MethodSettings

EXAMPLE = "for example csg:temperature=0.2"


@dataclass(frozen=True)
class MethodSpec:
    """A method and the settings it is used with."""

    label: str
    """What tables call it: the text as written, without settings that are paths."""
    name: str
    """The method, a key of csg_train.methods.METHODS."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the method by name; names with a dot are settings of the recipe (`augment.operations`)."""

    @property
    def file_name(self) -> str:
        """The label as a file name."""
        return file_name(self.label)

    @property
    def changes(self) -> dict[str, Any]:
        """Changes of a recipe, by dotted name, that select this method and its settings."""
        dotted = {n if "." in n else f"methods.{self.name}.{n}": value for n, value in self.settings.items()}
        return {"method": self.name} | dotted


def file_name(label: str) -> str:
    """The label of a method as a file name: `csg-apool-false` for `csg:apool=false`."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-")


def parse_method(text: str) -> MethodSpec:
    """Read `name` or `name:setting=value:...`; the values are YAML.

    Raises:
        UsageError: there is no such method, a setting is not of the form setting=value, or it is given twice.
    """
    name, *assignments = text.split(":")
    fields = load_method(name).Settings.model_fields
    settings: dict[str, Any] = {}
    label = name
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise UsageError(f"--method {text}: {assignment!r} is not of the form setting=value", EXAMPLE)
        if key in settings:
            raise UsageError(f"--method {text}: setting {key} is given twice", "give it once")
        try:
            settings[key] = parse_yaml(value)
        except ValueError as error:
            what = f"--method {text}: the value of {key} is not valid YAML: {error}"
            raise UsageError(what, "correct or quote it") from None
        if key not in fields or fields[key].annotation is not Path:
            label += f":{assignment}"
    return MethodSpec(label, name, settings)


def method_settings(name: str, task: str, given: Mapping[str, Any]) -> MethodSettings:
    """All settings of a method: those given, the others by default.

    Args:
        task: `cls` or `seg`, which have different defaults.

    Raises:
        UsageError: there is no such method or setting, a value is invalid, or a setting without a default is missing.
    """
    kind = load_method(name)
    try:
        return kind.Settings(**kind.defaults(task) | dict(given))
    except ValidationError as error:
        first = error.errors()[0]
    setting = ".".join(str(part) for part in first["loc"])
    hint = f"use a valid value: --set methods.{name}.{setting}=VALUE"
    if first["type"] == "missing":
        hint = f"set it: --method {name}:{setting}=VALUE"
    elif first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(setting, kind.Settings.model_fields, n=1)
        hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(kind.Settings.model_fields) or 'none'}"
    message = {"missing": "has no default", "extra_forbidden": "is not a setting of this method"}.get(first["type"])
    raise UsageError(f"method {name}: {setting}: {message or first['msg']}", hint)
