"""Label sets: the classes of masks with their values and colours, and the mapping of one set's classes to another's.

Some sets come with csg (csg/labelsets/*.yaml); a YAML file of the same form describes any other. A class index is the
position of the class in its set.
"""

from __future__ import annotations

import os
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from csg.card import ClassName, ClassSpec, Colour, Name
from csg.did_you_mean import use_one_of
from csg.errors import InputError
from csg.parsing import parse_yaml, read_yaml
from csg.records import Record

IGNORED = 255
"""Class index of pixels that are not counted."""
UNKNOWN = 254
"""Class index of mask values that are not in the label set."""
CITYSCAPES_IDS, CITYSCAPES_TRAIN_IDS = "cityscapes19", "bdd19"
"""The label sets of masks with Cityscapes' labelIds and labelTrainIds."""
MaskValue = Annotated[int, Field(ge=0, le=255)]
ClassNames = dict[ClassName, ClassName]


class LabelClass(Record):
    """A class of a label set."""

    name: ClassName
    """Name of the class."""
    ids: Annotated[tuple[MaskValue, ...], Field(min_length=1)]
    """Values of the class in a mask."""
    colour: Colour
    """RGB colour of the class in overlays."""


class LabelSet(Record):
    """The classes of masks.

    Example:
        >>> read_label_set("camvid11").names[:3]
        ('sky', 'building', 'pole')
    """

    version: Literal[1] = 1
    """Version of the file format."""
    name: Name
    """Name of the set."""
    classes: Annotated[tuple[LabelClass, ...], Field(min_length=2, max_length=UNKNOWN)]
    """The classes, in the order of their indices."""
    ignored: tuple[MaskValue, ...] = ()
    """Mask values that are not counted; 255 is one of them unless a class has it."""
    maps: dict[str, ClassNames] = Field(default_factory=dict)
    """For other sets by name: this set's class names to those of the other set."""
    maps_from: dict[str, ClassNames] = Field(default_factory=dict)
    """For other sets by name: their class names to those of this set."""

    @model_validator(mode="after")
    def _each_value_once(self) -> LabelSet:
        values = [value for c in self.classes for value in c.ids] + list(self.ignored)
        if len(values) != len(set(values)):
            raise ValueError("a mask value is given twice")
        if len(set(self.names)) != len(self.names):
            raise ValueError("a class name is given twice")
        return self

    @model_validator(mode="after")
    def _maps_name_classes(self) -> LabelSet:
        named = [("maps", other, name) for other, pairs in self.maps.items() for name in pairs]
        named += [("maps_from", other, name) for other, pairs in self.maps_from.items() for name in pairs.values()]
        for field, other, name in named:
            if name not in self.names:
                raise ValueError(f"{field}.{other} names the class {name}, which the set does not have")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in the order of their indices."""
        return tuple(c.name for c in self.classes)

    @property
    def colours(self) -> tuple[Colour, ...]:
        """RGB colours in the order of the class indices."""
        return tuple(c.colour for c in self.classes)

    def id_table(self) -> np.ndarray:
        """Class index of each mask value, uint8 (256,); IGNORED or UNKNOWN for values of no class."""
        table = np.full(256, UNKNOWN, np.uint8)
        table[list(self.ignored)] = IGNORED
        table[IGNORED] = IGNORED
        for index, c in enumerate(self.classes):
            table[list(c.ids)] = index
        return table

    @property
    def is_own(self) -> bool:
        """Whether it is one of the sets that come with csg."""
        return self.name in label_set_names() and self == _own_set(self.name)

    def train_id_table(self) -> np.ndarray:
        """The same for Cityscapes' labelTrainIds: by the classes' names, or class indices for other classes."""
        train_ids = _own_set(CITYSCAPES_TRAIN_IDS)
        if set(self.names) <= set(train_ids.names):
            return self._table_by_names(train_ids)
        table = np.full(256, UNKNOWN, np.uint8)
        table[: len(self.classes)] = np.arange(len(self.classes))
        table[IGNORED] = IGNORED
        return table

    def label_id_table(self) -> np.ndarray:
        """The same for Cityscapes' labelIds: a set of csg's own with Cityscapes' classes is read by their names."""
        label_ids = _own_set(CITYSCAPES_IDS)
        if self.is_own and set(self.names) <= set(label_ids.names):
            return self._table_by_names(label_ids)
        return self.id_table()

    def _table_by_names(self, other: LabelSet) -> np.ndarray:
        """Class index of each value of another set; IGNORED for its classes that are not in this one."""
        index = {name: position for position, name in enumerate(self.names)}
        table = np.arange(256, dtype=np.uint8)
        table[: len(other.classes)] = [index.get(name, IGNORED) for name in other.names]
        found: np.ndarray = table[other.id_table()]
        return found


def label_set_names() -> list[str]:
    """The label sets that come with csg, in alphabetical order."""
    files = resources.files("csg.labelsets").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def read_label_set(source: str) -> LabelSet:
    """A label set by name, or from a YAML file.

    Raises:
        InputError: there is no set of that name, or the file is not a label set.
    """
    if source in (names := label_set_names()):
        return _own_set(source)
    if not os.path.isfile(source):  # noqa: PTH113 - Path.is_file raises for a name that is too long
        folder = os.path.isdir(source)  # noqa: PTH112
        message = f"label set {source} is a folder" if folder else f"there is no label set {source[:200]!r}"
        raise InputError(message, use_one_of(source[:200], names, ", or a YAML file"))
    return _checked(read_yaml(Path(source), f"label set {source}"), source)


@cache
def _own_set(name: str) -> LabelSet:
    content = (resources.files("csg.labelsets") / f"{name}.yaml").read_bytes()
    return _checked(parse_yaml(content), name)


def _checked(tree: object, source: str) -> LabelSet:
    if not isinstance(tree, dict):
        raise InputError(
            f"label set {source} has no `name` and no `classes`", "write it as docs/how-to/dataset.md shows"
        )
    try:
        return LabelSet.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"label set {source}: {field}: {message}", "correct the file") from None


def sets_with_values(values: np.ndarray) -> list[str]:
    """The label sets of csg's own in which all of some mask values have a meaning, in alphabetical order."""
    return [name for name in label_set_names() if (_own_set(name).id_table()[values] != UNKNOWN).all()]


def class_map(classes: ClassSpec, target: LabelSet) -> dict[str, str]:
    """The classes of a model by name, and the name of each in another label set.

    Classes without a counterpart are left out.

    Raises:
        InputError: the classes differ, and neither set has a map to the other, or a map names a class that neither has.
    """
    if set(classes.names) == set(target.names):
        return {name: name for name in classes.names}
    source = classes.label_set or "the model"
    if pairs := target.maps_from.get(source) or _map_of(source, target.name):
        unknown = sorted({*pairs} - {*classes.names} | {*pairs.values()} - {*target.names})
        if unknown:
            raise InputError(
                f"the map from {source} to {target.name} names {', '.join(unknown[:6])}, in none of their classes",
                "correct `maps` or `maps_from` in the label set",
            )
        return {name: pairs[name] for name in classes.names if name in pairs}
    only = sorted(set(classes.names) ^ set(target.names))
    raise InputError(
        f"the classes of {source} and {target.name} differ ({', '.join(only[:6])}{' ...' if len(only) > 6 else ''})",
        f"add maps_from: {{{source}: {{class of the model: class of the images}}}} to the label set of the images",
    )


def _map_of(source: str, target: str) -> dict[str, str]:
    try:
        return read_label_set(source).maps.get(target, {})
    except InputError:  # the set of the model is a file that is not here
        return {}


def class_index_table(classes: ClassSpec, target: LabelSet) -> np.ndarray:
    """Class index in `target` of each class index of a model, uint8 (256,); IGNORED for classes without a counterpart.

    A prediction of a class without a counterpart is counted as wrong.

    Raises:
        InputError: as `class_map`.
    """
    names = class_map(classes, target)
    table = np.full(256, IGNORED, np.uint8)
    for index, name in enumerate(classes.names):
        if name in names:
            table[index] = target.names.index(names[name])
    return table
