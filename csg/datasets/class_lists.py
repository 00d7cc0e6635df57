"""List files of classification: lines `path label`, as VisDA-17 and Office-Home have them.

A label is a class name or a number from 0. A numbered class is named after the folder of its images; if images of one
class are in several folders, or one folder holds images of several classes, all classes are named by their numbers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

import numpy as np

from csg.datasets.class_folders import SHOWN, LabelledFiles, read_class_name
from csg.datasets.list_files import LABEL_WORDS, PATH_WORDS, ListFile, header_words, read_list
from csg.errors import InputError

MAX_LABEL = 100_000
_LIKE_A_NUMBER = re.compile(r"[-+.,\d\s]*(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf)", re.IGNORECASE)


def read_class_list(path: Path, known: Sequence[str] | None = None) -> LabelledFiles:
    """Read a list file of images with their classes.

    Args:
        path: the list file.
        known: the classes that the images may have, such as those of a model; some may have no image, and numbers are
            indices into them, unless the folders of the images say which classes they are. None: the list says which
            classes there are.

    Raises:
        InputError: a line is malformed, an image has two labels, a number is left out or too high, or the images are
            not where the list says.
    """
    listed = read_list(path)
    image, label = _columns(listed)
    paths, notes = listed.locate(image)
    texts = [line.fields[label] for line in listed.lines]
    notes += listed.notes
    numbers = {} if _all_known(set(texts), known or ()) else _numbers(listed, label)
    folders = _folder_names(texts, paths, numbers) if numbers else {}
    if not numbers:
        names = {text: read_class_name(text, f"{path}: label {text[:80]}") for text in sorted(set(texts))}
        _check_known(listed, label, names, known)
    elif known is None:
        _check_each_number(path, numbers.values())
        names = {text: read_class_name(folders.get(text, str(n)), str(path)) for text, n in numbers.items()}
    elif folders and _all_known(folders.values(), known):
        names = folders
    else:
        names = _by_number(listed, label, numbers, known)
        notes += (f"labels are numbers: {_in_words(numbers, names)}",)
    classes = list(dict.fromkeys(names.values()) if numbers else sorted(set(names.values())))
    if known is None and len(classes) < 2:
        raise InputError(f"{path} lists {len(classes)} classes", "list images of two or more classes")
    position = {name: index for index, name in enumerate(classes)}
    index = {text: position[name] for text, name in names.items()}
    labels = np.array([index[text] for text in texts])
    return LabelledFiles(tuple(classes), paths, labels, notes + _repeated(listed, paths, labels))


def _columns(listed: ListFile) -> tuple[int, int]:
    """The columns of image and label: those that the header names, or the first two.

    Raises:
        InputError: a line has another number of fields.
    """
    words = [header_words(field) for field in listed.header]
    label = next((column for column, word in enumerate(words) if word & LABEL_WORDS), 1)
    image = next((column for column, word in enumerate(words) if word & PATH_WORDS and column != label), 0)
    count = max(len(words), 2)
    for line in listed.lines:
        if len(line.fields) != count:
            found = f"{len(line.fields)} fields" if line.fields[1:] else "no label"
            raise InputError(
                f"{listed.where(line)} has {found}: {' '.join(line.fields)[:80]}",
                "write 'path label', and a path with spaces in double quotes",
            )
    return image, label


def _repeated(listed: ListFile, paths: Sequence[Path], labels: np.ndarray) -> tuple[str, ...]:
    """A note if images are listed more than once.

    Raises:
        InputError: an image has two labels.
    """
    names = [str(path) for path in paths]
    if not (again := len(names) - len(set(names))):
        return ()
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        before = first.setdefault(name, row)
        if labels[before] != labels[row]:
            line = listed.lines[before].number
            raise InputError(
                f"{listed.where(listed.lines[row])}: image {name} has another label in line {line}",
                "remove one of the two lines",
            )
    return (f"{again} line{'s name images that are' if again > 1 else ' names an image that is'} listed before",)


def _all_known(names: Collection[str], known: Collection[str]) -> bool:
    return {normalize("NFC", name) for name in names} <= set(known)


def _numbers(listed: ListFile, label: int) -> dict[str, int]:
    """The number of each label, in their order; none if the labels are words.

    Raises:
        InputError: a label is a number that is not whole, negative or too high, or some are words and some numbers.
    """
    lines = {line.fields[label]: line for line in reversed(listed.lines)}  # the first line with each label
    whole = {text for text in lines if text.isascii() and text.isdigit()}
    for text in sorted(lines.keys() - whole, key=lambda text: lines[text].number):
        if _LIKE_A_NUMBER.fullmatch(text):
            raise InputError(
                f"{listed.where(lines[text])}: label {text[:80]!r} is neither a class name nor a whole number from 0",
                "correct the label",
            )
    if whole and len(whole) < len(lines):
        words = lines.keys() - whole
        odd = min(whole if len(whole) < len(words) else words, key=lambda text: lines[text].number)
        raise InputError(
            f"{listed.where(lines[odd])}: label {odd[:80]} is a {'number' if odd in whole else 'word'}, others are not",
            "write numbers alone or class names alone",
        )
    numbers = {text: int(text[-20:]) for text in whole}
    for text, number in numbers.items():
        if number > MAX_LABEL or text[:-20].strip("0"):
            where = listed.where(lines[text])
            raise InputError(f"{where}: label {text[:80]} is above {MAX_LABEL}", "correct the label")
    return dict(sorted(numbers.items(), key=lambda pair: pair[1]))


def _folder_names(texts: Sequence[str], paths: Sequence[Path], numbers: Mapping[str, int]) -> dict[str, str]:
    """The name of the folder of each label's images; none if labels and folders are not one to one."""
    folders = {(text, str(path).rpartition("/")[0]) for text, path in zip(texts, paths, strict=True)}
    names = {(numbers[text], normalize("NFC", folder.rpartition("/")[2])) for text, folder in folders}
    by_number = dict(names)
    if len(names) == len(by_number) == len(set(by_number.values())):
        return {text: by_number[number] for text, number in numbers.items()}
    return {}


def _check_each_number(path: Path, numbers: Collection[int]) -> None:
    """Raise InputError if a number up to the highest has no image: nothing could be trained for it."""
    missing = sorted(set(range(max(numbers) + 1)).difference(numbers))
    if missing:
        names = ", ".join(map(str, missing[:SHOWN])) + (f" and {len(missing) - SHOWN} more" if missing[SHOWN:] else "")
        raise InputError(f"{path} lists no image of label {names}", "number the labels from 0 without gaps")


def _check_known(listed: ListFile, label: int, names: Mapping[str, str], known: Sequence[str] | None) -> None:
    """Raise InputError at the first line whose class is not known."""
    unknown = set(names.values()).difference(known) if known is not None else ()
    line = next((line for line in listed.lines if names[line.fields[label]] in unknown), None) if unknown else None
    if line:
        raise InputError(
            f"{listed.where(line)}: class {names[line.fields[label]]} is none of the {len(known or ())} classes",
            "use the same class names in both datasets",
        )


def _by_number(listed: ListFile, label: int, numbers: Mapping[str, int], known: Sequence[str]) -> dict[str, str]:
    """The class of each label as an index into the known classes."""
    for line in listed.lines:
        if numbers[line.fields[label]] >= len(known):
            raise InputError(
                f"{listed.where(line)}: label {line.fields[label]} is none of the {len(known)} classes",
                f"use labels from 0 to {len(known) - 1}, or class names",
            )
    return {text: known[number] for text, number in numbers.items()}


def _in_words(numbers: Mapping[str, int], names: Mapping[str, str]) -> str:
    """What the first numbers mean.

    Example:
        >>> _in_words({"0": 0, "1": 1}, {"0": "bird", "1": "cat"})
        '0 is bird, 1 is cat'
    """
    meanings = dict.fromkeys(f"{number} is {names[text]}" for text, number in numbers.items())
    return ", ".join(list(meanings)[:SHOWN]) + (", ..." if len(meanings) > SHOWN else "")
