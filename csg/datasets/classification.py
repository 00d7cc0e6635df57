"""Labelled images on disk: class folders (csg/datasets/class_folders.py), list files (csg/datasets/class_lists.py), the
embedded real digits.

Synthetic training images and real images are read in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from csg.card import ClassSpec
from csg.datasets.class_folders import LabelledFiles, read_class_folders
from csg.datasets.class_lists import read_class_list
from csg.datasets.dataset_scan import DatasetScan, scan_dataset
from csg.errors import InputError
from csg.files import absolute
from csg.locks import cached_folder

EMBEDDED_DIGITS = "digits"
LIST_NAME = "image_list.txt"
"""A folder with such a file is read as that list."""
MAX_NAMES = 6
"""Number of class names that a message shows."""


@dataclass(frozen=True)
class ClassificationDataset:
    """Image files and their classes."""

    name: str
    """Name of the dataset."""
    classes: tuple[str, ...]
    """Class names; a label is an index into them."""
    paths: tuple[Path, ...]
    """The image files."""
    labels: np.ndarray
    """Class index of each image, int64 (N,)."""
    notes: tuple[str, ...] = ()
    """What a user has to know about how the sources were read, such as files that were passed over."""

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def class_spec(self) -> ClassSpec:
        """The classes of a model that is trained on these images."""
        return ClassSpec(self.classes)

    @cached_property
    def scan(self) -> DatasetScan:
        """What the image files are; each is read once, or not at all if it has not changed since the last scan."""
        return scan_dataset(self.classes, (b"%d" % label for label in self.labels), self.paths)

    def fingerprint(self) -> str:
        """SHA-256 of the classes and of each image's file name, content and label; not of the folder they are in."""
        return self.scan.fingerprint

    def subset(self, indices: np.ndarray, name: str) -> ClassificationDataset:
        """The images at `indices`, int (M,), as a dataset with another name."""
        return replace(self, name=name, paths=tuple(self.paths[i] for i in indices), labels=self.labels[indices])

    def with_classes(self, classes: Sequence[str], allow_missing: bool = False) -> ClassificationDataset:
        """The same images with labels that are indices into `classes`.

        Args:
            classes: the class names in the wanted order, such as those of a model.
            allow_missing: accept classes without images.

        Raises:
            InputError: the classes differ.
        """
        unknown, missing = sorted(set(self.classes) - set(classes)), sorted(set(classes) - set(self.classes))
        if unknown or (missing and not allow_missing):
            only = [f"only in {self.name}: {_names(unknown)}"] if unknown else []
            only += [f"missing in {self.name}: {_names(missing)}"] if missing else []
            raise InputError(f"the classes differ ({'; '.join(only)})", "use the same class names in both datasets")
        position = {name: index for index, name in reversed(tuple(enumerate(classes)))}
        index = np.array([position[name] for name in self.classes])
        return replace(self, classes=tuple(classes), labels=index[self.labels])


def read_classification_dataset(
    sources: Sequence[str | Path], classes: Sequence[str] | None = None
) -> ClassificationDataset:
    """Read one or more sources, and join them.

    Args:
        sources: folders with one folder for each class, list files, folders with an `image_list.txt`, or `digits` for
            the embedded real digits.
        classes: the classes that the images may have, in the order of a model; some may have no image. None: those of
            the first source, of which every source must have images.

    Raises:
        InputError: a source is missing, empty or malformed, or has other classes.

    Example:
        >>> len(read_classification_dataset(["digits"]))
        1797
    """
    parts: list[ClassificationDataset] = []
    for source in sources:
        known = classes or (parts[0].classes if parts else None)
        part = _read_one(source, known)
        parts.append(part.with_classes(known, allow_missing=classes is not None) if known else part)
    joined = ClassificationDataset(
        name=" + ".join(part.name for part in parts),
        classes=parts[0].classes,
        paths=tuple([path for part in parts for path in part.paths]),
        labels=np.concatenate([part.labels for part in parts]),
        notes=tuple([f"{part.name}: {note}" if parts[1:] else note for part in parts for note in part.notes]),
    )
    images = np.bincount(joined.labels, minlength=len(joined.classes))
    missing = [name for name, count in zip(joined.classes, images, strict=True) if not count]
    return replace(joined, notes=(*joined.notes, f"no image of class {_names(missing)}")) if missing else joined


def _names(names: Sequence[str]) -> str:
    """Class names for a message, at most MAX_NAMES."""
    return ", ".join(names[:MAX_NAMES]) + (f" and {len(names) - MAX_NAMES} more" if names[MAX_NAMES:] else "")


def _read_one(source: str | Path, known: Sequence[str] | None) -> ClassificationDataset:
    if source == EMBEDDED_DIGITS:
        return _dataset(EMBEDDED_DIGITS, read_class_folders(_real_digits()))
    path = Path(source)
    listed = path / LIST_NAME if path.is_dir() else path
    if listed.is_file():
        name = listed.stem if listed.name != LIST_NAME else absolute(listed).parent.name
        return _dataset(name, read_class_list(listed, known))
    if not path.is_dir():
        what = "is neither a folder nor a file" if path.exists() else "does not exist"
        raise InputError(f"data {path} {what}", "name a folder with one folder for each class, or a list file")
    return _dataset(absolute(path).name, read_class_folders(path, partly=known is not None))


def _dataset(name: str, files: LabelledFiles) -> ClassificationDataset:
    return ClassificationDataset(name, files.classes, files.paths, files.labels, files.notes)


def _real_digits() -> Path:
    """scikit-learn's 1,797 scanned handwritten digits (8 x 8, grey) as class folders, created in the cache."""
    return cached_folder("digits-real-v1", _write_real_digits)


def _write_real_digits(folder: Path) -> None:
    from PIL import Image
    from sklearn.datasets import load_digits

    scans = load_digits()
    for digit in range(10):
        (folder / str(digit)).mkdir()
    for number, (scan, digit) in enumerate(zip(scans.images, scans.target, strict=True)):
        grey = (scan * (255 / 16)).round().astype(np.uint8)
        Image.fromarray(grey).save(folder / str(digit) / f"{number:04d}.png")
