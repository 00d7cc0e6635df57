"""A method with settings as a user writes it: `csg`, `csg:temperature=0.2`, `csg:apool=false:augment.operations=0`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from csg.errors import UsageError, one_line
from csg.parsing import parse_yaml
from csg_train.methods.settings import MethodSettings, settings_class

BETWEEN = re.compile(r"(?<![=\"']timm):")
"""The colon between settings: not that of a backbone, `timm:NAME`."""
EXAMPLE = "for example csg:temperature=0.2"
METHOD_SYNONYMS = {
    **dict.fromkeys(("tau", "t", "temp"), "temperature"),
    **dict.fromkeys(("lambda", "lam", "lambd", "mu", "alpha", "coef", "loss_weight"), "weight"),
    **dict.fromkeys(("k", "queue_size", "queue_length", "memory"), "queue"),
    **dict.fromkeys(("m", "ema", "ema_decay"), "momentum"),
    **dict.fromkeys(("layers", "blocks"), "stages"),
}
"""Settings of methods by the words that papers and other programs have for them."""


class UnknownMethodSetting(UsageError):
    """A method does not have a setting.

    Args:
        method: name of the method.
        setting: the name that is not one of its settings.
    """

    def __init__(self, method: str, setting: str):
        hint = f"it has {', '.join(settings_class(method).model_fields) or 'none'}"
        super().__init__(f"method {method}: {setting}: is not a setting of this method", hint)
        self.method, self.setting = method, setting


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
    """Read `name` or `name:setting=value:...`; the values are YAML, `model.backbone=timm:NAME` among them.

    Raises:
        UsageError: there is no such method, a setting is not of the form setting=value, or it is given twice.
    """
    name, *assignments = BETWEEN.split(text)
    fields = settings_class(name).model_fields
    settings = parse_assignments(assignments, f"--method {text}", EXAMPLE)
    shown = [
        assignment
        for key, assignment in zip(settings, assignments, strict=True)
        if key not in fields or fields[key].annotation is not Path
    ]
    return MethodSpec(":".join([name, *shown]), name, settings)


def parse_assignments(texts: Iterable[str], option: str, example: str) -> dict[str, Any]:
    """The values of `name=value` texts by name; the values are YAML.

    Args:
        texts: the texts.
        option: where they stand on the command line, for the error.
        example: what to do if one is malformed.

    Raises:
        UsageError: a text is not of that form, or a name is given twice.
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise UsageError(f"{option}: {text!r} is not of the form name=value", example)
        if name in values:
            raise UsageError(f"{option}: setting {name} is given twice", "give it once")
        try:
            values[name] = parse_yaml(value)
        except ValueError as error:
            what = f"{option}: the value of {name} is not valid YAML: {one_line(error, 100)}"
            raise UsageError(what, "correct it, or put it in quotes") from None
    return values


def method_settings(name: str, task: str, given: Mapping[str, Any]) -> MethodSettings:
    """All settings of a method: those given, the others by default.

    Args:
        task: `cls` or `seg`, which have different defaults.

    Raises:
        UsageError: there is no such method or setting, a value is invalid, or a setting without a default is missing.
    """
    kind = settings_class(name)
    try:
        return kind(**(kind.segmentation_defaults if task == "seg" else {}) | dict(given))
    except ValidationError as error:
        first = error.errors()[0]
    setting = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        raise UnknownMethodSetting(name, setting)
    if first["type"] == "missing":
        raise UsageError(f"method {name}: {setting}: has no default", f"set it: --method {name}:{setting}=VALUE")
    hint = f"use a valid value: --set methods.{name}.{setting}=VALUE"
    raise UsageError(f"method {name}: {setting}: {first['msg']}", hint)
