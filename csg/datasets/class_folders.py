"""Class folders: a folder for each class, with its images in it and in folders below it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from csg.card import class_name
from csg.datasets.listing import (
    Listing,
    describe_files,
    describe_passed_over,
    ending_of,
    list_images,
    split_entries,
)
from csg.errors import InputError
from csg.images import SUFFIXES

SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval"})
"""Names of folders that hold class folders, and are none."""
SHOWN = 3
"""Number of names that a note shows."""


class LabelledFiles(NamedTuple):
    """The images of one source with their classes."""

    classes: tuple[str, ...]
    """Class names."""
    paths: tuple[Path, ...]
    """The image files."""
    labels: np.ndarray
    """Index of each image's class, int64 (N,)."""
    notes: tuple[str, ...]
    """What a user has to know about how the source was read."""


def read_class_folders(folder: Path, partly: bool = False) -> LabelledFiles:
    """Read the class folders in a folder.

    Args:
        folder: an existing folder.
        partly: the images of some classes may be missing, as in a real set: a class folder without images, or one
            class folder alone, is no error.

    Raises:
        InputError: there are no class folders, one is empty, or the name of one can't be a class's.
    """
    folders, files, hidden = split_entries(folder)
    passed_over = Counter({"hidden": hidden} if hidden else {})
    images_outside = sum(ending_of(file.name) in SUFFIXES for file in files)
    passed_over.update(ending_of(file.name) for file in files if ending_of(file.name) not in SUFFIXES)
    by_class = _by_class(folders)
    if by_class and {name.lower() for name in by_class} <= SPLITS:
        raise InputError(f"{folder} holds the splits {', '.join(by_class)}", f"name one, for example {folders[0]}")
    if len(by_class) < (1 if partly else 2):
        found = f"1 class folder, {next(iter(by_class))}" if by_class else "0 class folders"
        beside = f", and images outside them: {images_outside}" if images_outside else ""
        raise InputError(f"{folder} holds {found}{beside}", "create a folder of images for each class, at least two")
    if images_outside:
        plural = "s" if images_outside > 1 else ""
        passed_over[f"image{plural} outside the class folders"] = images_outside
    listings = {name: list_images(path) for name, path in by_class.items()}
    for listing in listings.values():
        passed_over.update(listing.passed_over)
    if not partly:
        _check_none_empty(by_class, listings)
    elif not any(listing.images for listing in listings.values()):
        raise InputError(f"no class folder in {folder} holds an image", "add images to them")
    notes = [describe_passed_over(passed_over)] if passed_over else []
    return _joined({name: listing for name, listing in listings.items() if listing.images}, notes)


def read_class_name(text: str, where: str) -> str:
    """A class name in its composed form.

    Args:
        text: the name.
        where: where it was found, for the error.

    Raises:
        InputError: it can't be a class's (`csg.card.class_name`).
    """
    try:
        return class_name(text)
    except ValueError as error:
        raise InputError(f"{where}: {error}", "rename the class") from None


def _by_class(folders: list[Path]) -> dict[str, Path]:
    """The class folders by name, in the order of the names."""
    found: dict[str, Path] = {}
    for folder in folders:
        name = read_class_name(folder.name, f"class folder {folder}")
        if name in found:
            names = f"{found[name].name!a} and {folder.name!a}"
            raise InputError(
                f"the class folders {names} in {folder.parent} have the same name, {name}, in two forms of Unicode",
                "move the images of one into the other",
            )
        found[name] = folder
    return dict(sorted(found.items()))


def _check_none_empty(folders: Mapping[str, Path], listings: Mapping[str, Listing]) -> None:
    for name, listing in listings.items():
        if not listing.images:
            files = f", but {describe_files(listing.passed_over)}" if listing.passed_over else ""
            raise InputError(f"class folder {folders[name]} holds no image{files}", "add images to it or remove it")


def _joined(listings: Mapping[str, Listing], notes: list[str]) -> LabelledFiles:
    nested = [folder for listing in listings.values() for folder in listing.folders]
    if nested:
        count = f"{len(nested)} folder{'s' if len(nested) > 1 else ''}"
        names = ", ".join(map(str, nested[:SHOWN])) + (", ..." if nested[SHOWN:] else "")
        notes = [*notes, f"images in {count} inside class folders are read too: {names}"]
    return LabelledFiles(
        classes=tuple(listings),
        paths=tuple([path for listing in listings.values() for path in listing.images]),
        labels=np.repeat(np.arange(len(listings)), [len(listing.images) for listing in listings.values()]),
        notes=tuple(notes),
    )
