"""Label sets of masks (which value is which class, in which colour), and the maps between sets.

Three come with csg (csg/labelsets/*.yaml: cityscapes19, camvid11, digit-scenes); a YAML file of the same form describes
any other. A class index is the class's place in its set; IGNORED is no class.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from csg.card import ClassName, ClassSpec, Colour, Name
from csg.errors import InputError, one_line

IGNORED = 255
UNKNOWN = 254  # a mask value that the set does not name
Value = Annotated[int, Field(ge=0, le=255)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelClass(_Part):
    """A class: the values it has in a mask, and its colour in pictures, RGB."""

    name: ClassName
    ids: Annotated[tuple[Value, ...], Field(min_length=1)]
    colour: Colour


class LabelSet(_Part):
    """A set of classes.

    ignored: mask values that count nowhere; 255 always is one. maps: by another set's name, this set's classes to that
    set's, several to one where it has fewer. maps_from: the same the other way round, for sets that csg does not know.
    """

    name: Name
    classes: Annotated[tuple[LabelClass, ...], Field(min_length=2, max_length=UNKNOWN)]
    ignored: tuple[Value, ...] = ()
    maps: dict[str, dict[str, str]] = {}
    maps_from: dict[str, dict[str, str]] = {}

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
        """RGB of each class."""
        return tuple(c.colour for c in self.classes)

    def table(self) -> np.ndarray:
        """Mask value to class index, uint8 (256,): IGNORED for ignored values, UNKNOWN for those not named."""
        table = np.full(256, UNKNOWN, np.uint8)
        table[list(self.ignored)] = IGNORED
        table[IGNORED] = IGNORED
        for index, c in enumerate(self.classes):
            table[list(c.ids)] = index
        return table

    def train_ids(self) -> np.ndarray:
        """As `table`, for masks that hold class indices already (Cityscapes' labelTrainIds)."""
        table = np.full(256, UNKNOWN, np.uint8)
        table[: len(self.classes)] = np.arange(len(self.classes))
        table[IGNORED] = IGNORED
        return table


def label_set_names() -> list[str]:
    """The label sets that come with csg, in alphabetical order."""
    files = resources.files("csg.labelsets").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def label_set(source: str) -> LabelSet:
    """A label set by name, or from a YAML file.

    Raises:
        InputError: there is none of that name, or the file is no label set.
    """
    shipped = resources.files("csg.labelsets") / f"{source}.yaml"
    if source in (names := label_set_names()):
        text = shipped.read_text()
    elif Path(source).is_file():
        text = Path(source).read_text(errors="replace")
    else:
        raise InputError(f"there is no label set {source!r}", f"take one of {', '.join(names)}, or a YAML file")
    try:
        return LabelSet.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise InputError(f"label set {source} is no YAML: {one_line(error)}", "mend the file") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise InputError(f"label set {source}: {place}: {first['msg']}", "mend the file") from None


def translation(classes: ClassSpec, target: LabelSet) -> dict[str, str]:
    """What each class of a model is called in another label set; classes without a counterpart are left out.

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
        f"say in the label set of the images which is which, maps_from: {{{source}: {{its class: yours}}}}",
    )


def _map_of(source: str, target: str) -> dict[str, str]:
    try:
        return label_set(source).maps.get(target, {})
    except InputError:  # a set of the user's own, whose file is not here
        return {}


def translation_table(classes: ClassSpec, target: LabelSet) -> np.ndarray:
    """Class index of the model to class index of `target`, uint8 (256,): IGNORED where there is no counterpart.

    A prediction without a counterpart is none of the classes and so a mistake wherever the label counts.
    """
    pairs = translation(classes, target)
    table = np.full(256, IGNORED, np.uint8)
    for index, name in enumerate(classes.names):
        if name in pairs:
            table[index] = target.names.index(pairs[name])
    return table
