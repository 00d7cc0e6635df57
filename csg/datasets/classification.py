"""Labelled images on disk: class folders, list files (VisDA-17), the embedded real digits.

Synthetic training images and real images are read in the same way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from csg.card import ClassSpec
from csg.datasets.dataset_scan import DatasetScan, scan_dataset
from csg.errors import InputError
from csg.files import cached_folder
from csg.images import SUFFIXES

EMBEDDED_DIGITS = "digits"
LIST_NAMES = ("image_list.txt",)
MAX_LABEL = 100_000


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
            only = [f"only in {self.name}: {', '.join(unknown)}"] if unknown else []
            only += [f"missing in {self.name}: {', '.join(missing)}"] if missing and not allow_missing else []
            raise InputError(f"the classes differ ({'; '.join(only)})", "use the same class folders in both datasets")
        index = np.array([list(classes).index(name) for name in self.classes])
        return replace(self, classes=tuple(classes), labels=index[self.labels])


def read_classification_dataset(sources: Sequence[str | Path]) -> ClassificationDataset:
    """Read one or more sources with the same classes, and join them.

    Args:
        sources: folders with one folder for each class, list files, folders with an `image_list.txt`, or `digits` for
            the embedded real digits.

    Raises:
        InputError: a source is missing, empty or malformed, or the classes of two sources differ.

    Example:
        >>> len(read_classification_dataset(["digits"]))
        1797
    """
    parts = [_read_one(source) for source in sources]
    classes = parts[0].classes
    parts = [part.with_classes(classes) for part in parts]
    return ClassificationDataset(
        " + ".join(part.name for part in parts),
        classes,
        tuple(path for part in parts for path in part.paths),
        np.concatenate([part.labels for part in parts]),
    )


def _read_one(source: str | Path) -> ClassificationDataset:
    if source == EMBEDDED_DIGITS:
        return ClassificationDataset(EMBEDDED_DIGITS, *_class_folders(_real_digits()))
    path = Path(source)
    if path.is_file():
        return ClassificationDataset(path.parent.name, *_list_file(path))
    if not path.is_dir():
        raise InputError(f"data {path} does not exist", "name a folder with one folder for each class, or a list file")
    for name in LIST_NAMES:
        if (path / name).is_file():
            return ClassificationDataset(path.name, *_list_file(path / name))
    return ClassificationDataset(path.resolve().name, *_class_folders(path))


def _class_folders(folder: Path) -> tuple[tuple[str, ...], tuple[Path, ...], np.ndarray]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    files = [sorted(f for f in (folder / name).iterdir() if f.suffix.lower() in SUFFIXES) for name in names]
    if len(names) < 2:
        raise InputError(
            f"{folder} holds {len(names)} class folders", "create a folder of images for each class, at least two"
        )
    for name, found in zip(names, files, strict=True):
        if not found:
            raise InputError(f"class folder {folder / name} holds no image", "add images to it or remove it")
    labels = np.repeat(np.arange(len(names)), [len(found) for found in files])
    return tuple(names), tuple(path for found in files for path in found), labels


def _list_file(path: Path) -> tuple[tuple[str, ...], tuple[Path, ...], np.ndarray]:
    """Read VisDA-17's format (docs/method.md section 6): a line `path label` for each image.

    Paths are relative to the list file. A class is named after the folder of its images; if images of one class are in
    several folders, or one folder holds images of several classes, all classes are named by their numbers.
    """
    names, labels = _parse_list(path)
    count = max(labels, default=-1) + 1
    if count < 2:
        raise InputError(f"{path} lists {count} classes", "list images of two or more classes, with labels from 0")
    for name in (names[0], names[-1]):
        if not (path.parent / name).is_file():
            raise InputError(
                f"{path} lists {name}, which is not in {path.parent}", "paths are relative to the list file"
            )
    pairs = set(zip(labels, (Path(name).parent.name for name in names), strict=True))
    one_to_one = len(pairs) == count and len({folder for _, folder in pairs}) == count
    classes = [folder for _, folder in sorted(pairs)] if one_to_one else [str(label) for label in range(count)]
    images = Counter(labels)
    empty = [classes[label] for label in range(count) if label not in images]
    if empty:
        raise InputError(f"{path} lists no image of label {', '.join(empty)}", "number the labels from 0 without gaps")
    return tuple(classes), tuple(path.parent / name for name in names), np.array(labels)


def _parse_list(path: Path) -> tuple[list[str], list[int]]:
    """The image paths and the labels of a list file."""
    names: list[str] = []
    labels: list[int] = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if not name or not label.isdecimal() or int(label) > MAX_LABEL:
            raise InputError(f"{path} line {number} is not of the form 'path label': {line[:80]!r}", "correct the line")
        names.append(name.strip())
        labels.append(int(label))
    return names, labels


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
