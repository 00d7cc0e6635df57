"""Labelled images on disk, as lists of files: class folders, list files (VisDA-17), the embedded real digits.

Used for the synthetic training images as well as for the real ones.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from csg.card import ClassSpec
from csg.errors import InputError
from csg.files import atomic_directory, cache_dir
from csg.images import SUFFIXES

EMBEDDED_DIGITS = "digits"
LIST_NAMES = ("image_list.txt",)


@dataclass(frozen=True)
class ClassificationDataset:
    """Image files and the index of each one's class."""

    name: str
    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: np.ndarray  # int64 (N,)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def class_spec(self) -> ClassSpec:
        """What a model that trains on these images is to tell apart."""
        return ClassSpec(self.classes)

    def fingerprint(self) -> str:
        """SHA-256 over classes, and each file's name, size and label: tells two data sets apart in seconds."""
        digest = hashlib.sha256("\n".join(self.classes).encode())
        for path, label in zip(self.paths, self.labels, strict=True):
            size = path.stat().st_size if path.exists() else "missing"
            digest.update(f"{path.parent.name}/{path.name} {size} {label}\n".encode())
        return digest.hexdigest()

    def take(self, places: np.ndarray, name: str) -> ClassificationDataset:
        """The images at `places`, int (M,), under another name."""
        return ClassificationDataset(
            name, self.classes, tuple(self.paths[place] for place in places), self.labels[places]
        )

    def in_order_of(self, classes: Sequence[str], partly: bool = False) -> ClassificationDataset:
        """The same images with labels that follow `classes`.

        Args:
            partly: whether some of `classes` may be without images here.

        Raises:
            InputError: the classes differ.
        """
        unknown, missing = sorted(set(self.classes) - set(classes)), sorted(set(classes) - set(self.classes))
        if unknown or (missing and not partly):
            only = [f"only in {self.name}: {', '.join(unknown)}"] if unknown else []
            only += [f"missing in {self.name}: {', '.join(missing)}"] if missing and not partly else []
            raise InputError(f"the classes differ ({'; '.join(only)})", "make the class folders of both sets the same")
        index = np.array([list(classes).index(name) for name in self.classes])
        return ClassificationDataset(self.name, tuple(classes), self.paths, index[self.labels])


def read_classification_dataset(sources: Sequence[str | Path]) -> ClassificationDataset:
    """Read one or more sources with the same classes, one after the other.

    A source is a folder with a folder for each class, a list file, a folder that holds `image_list.txt`, or
    the word `digits` for the embedded real set.

    Raises:
        InputError: a source is missing, empty or malformed, or the sources differ in their classes.
    """
    parts = [_read_one(source) for source in sources]
    classes = parts[0].classes
    parts = [part.in_order_of(classes) for part in parts]
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
        raise InputError(f"data {path} is not there", "name a folder with one folder for each class, or a list file")
    for name in LIST_NAMES:
        if (path / name).is_file():
            return ClassificationDataset(path.name, *_list_file(path / name))
    return ClassificationDataset(path.resolve().name, *_class_folders(path))


def _class_folders(folder: Path) -> tuple[tuple[str, ...], tuple[Path, ...], np.ndarray]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    files = [sorted(f for f in (folder / name).iterdir() if f.suffix.lower() in SUFFIXES) for name in names]
    if len(names) < 2:
        raise InputError(
            f"{folder} holds {len(names)} class folders", "give each class a folder of images, two or more"
        )
    for name, found in zip(names, files, strict=True):
        if not found:
            raise InputError(f"class folder {folder / name} holds no image", "add images to it or remove it")
    labels = np.repeat(np.arange(len(names)), [len(found) for found in files])
    return tuple(names), tuple(path for found in files for path in found), labels


def _list_file(path: Path) -> tuple[tuple[str, ...], tuple[Path, ...], np.ndarray]:
    """VisDA-17's form (docs/method.md section 6): each line `path label`, paths relative to the file's folder.

    A label's name is the folder its images stand in; labels whose images share no folder are named by number.
    """
    names: list[str] = []
    labels: list[int] = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if not name or not label.isdecimal() or int(label) > 100_000:
            raise InputError(f"{path} line {number}: not of the form 'path label': {line[:80]!r}", "mend the line")
        names.append(name.strip())
        labels.append(int(label))
    count = max(labels, default=-1) + 1
    if count < 2:
        raise InputError(f"{path} lists {count} classes", "list images of two or more classes, labels from 0")
    for name in (names[0], names[-1]):
        if not (path.parent / name).is_file():
            raise InputError(
                f"{path} lists {name}, which is not in {path.parent}", "paths are relative to the list file"
            )
    pairs = set(zip(labels, (Path(name).parent.name for name in names), strict=True))
    one_to_one = len(pairs) == count and len({folder for _, folder in pairs}) == count
    classes = [folder for _, folder in sorted(pairs)] if one_to_one else [str(label) for label in range(count)]
    empty = [classes[label] for label in range(count) if label not in Counter(labels)]
    if empty:
        raise InputError(f"{path} lists no image of label {', '.join(empty)}", "number the labels from 0 without gaps")
    return tuple(classes), tuple(path.parent / name for name in names), np.array(labels)


def _real_digits() -> Path:
    """scikit-learn's 1,797 scanned handwritten digits (8 x 8, grey) as class folders in the cache."""
    folder = cache_dir() / "digits-real-v1"
    if not folder.is_dir():
        from PIL import Image
        from sklearn.datasets import load_digits

        scans = load_digits()
        with atomic_directory(folder) as fresh:
            for digit in range(10):
                (fresh / str(digit)).mkdir()
            for number, (scan, digit) in enumerate(zip(scans.images, scans.target, strict=True)):
                grey = (scan * (255 / 16)).round().astype(np.uint8)
                Image.fromarray(grey).save(fresh / str(digit) / f"{number:04d}.png")
    return folder
