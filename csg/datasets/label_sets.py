"""Label sets: the classes of masks with their values and colours, and the mapping of one set's classes to another's.

Three sets come with csg (csg/labelsets/*.yaml: cityscapes19, camvid11, digit-scenes); a YAML file of the same form
describes any other. A class index is the position of the class in its set.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import yaml
from pydantic import Field, ValidationError, model_validator

from csg.card import ClassName, ClassSpec, Colour, Name
from csg.errors import InputError, one_line
from csg.records import Record

IGNORED = 255
"""Class index of pixels that are not counted."""
UNKNOWN = 254
"""Class index of mask values that are not in the label set."""
MaskValue = Annotated[int, Field(ge=0, le=255)]


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
    """Mask values that are not counted; 255 is always one of them."""
    maps: dict[str, dict[str, str]] = Field(default_factory=dict)
    """For other sets by name: this set's class names to those of the other set."""
    maps_from: dict[str, dict[str, str]] = Field(default_factory=dict)
    """For other sets by name: their class names to those of this set."""

    @model_validator(mode="after")
    def _each_value_once(self) -> LabelSet:
        values = [value for c in self.classes for value in c.ids] + list(self.ignored)
        if len(values) != len(set(values)):
            raise ValueError("a mask value is given twice")
        if len(set(self.names)) != len(self.names):
            raise ValueError("a class name is given twice")
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

    def train_id_table(self) -> np.ndarray:
        """The same for masks whose values are class indices already (Cityscapes' labelTrainIds)."""
        table = np.full(256, UNKNOWN, np.uint8)
        table[: len(self.classes)] = np.arange(len(self.classes))
        table[IGNORED] = IGNORED
        return table


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
        text = (resources.files("csg.labelsets") / f"{source}.yaml").read_text()
    elif Path(source).is_file():
        text = Path(source).read_text(errors="replace")
    else:
        raise InputError(f"there is no label set {source!r}", f"use one of {', '.join(names)}, or a YAML file")
    try:
        return LabelSet.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise InputError(f"label set {source} is not valid YAML: {one_line(error)}", "correct the file") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"label set {source}: {field}: {first['msg']}", "correct the file") from None


def class_map(classes: ClassSpec, target: LabelSet) -> dict[str, str]:
    """The classes of a model by name, and the name of each in another label set.

    Classes without a counterpart are left out.

    Raises:
        InputError: the classes differ, and neither set has a map to the other.
    """
    if set(classes.names) == set(target.names):
        return {name: name for name in classes.names}
    source = classes.label_set or "the model"
    if pairs := target.maps_from.get(source) or _map_of(source, target.name):
        return {name: pairs[name] for name in classes.names if pairs.get(name) in target.names}
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
