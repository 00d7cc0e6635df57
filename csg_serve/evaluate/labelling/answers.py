"""What people answered: a file a person, `labels-NAME.jsonl`, one JSON line an answer; and the files of all, merged.

    {"item": 3, "class": "dog", "at": "2025-06-01T12:00:00Z"}
    {"item": 4, "class": null, "at": ...}                      can't tell
    {"item": 4, "class": null, "at": ..., "taken_back": true}  item 4 has no answer any more

A line is on disk before its answer counts. The last line of an item holds; nothing is ever removed from a file.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO

from pydantic import AwareDatetime, ConfigDict, Field, ValidationError

from csg.errors import InputError, UsageError
from csg.files import validate_name
from csg.locks import lock
from csg.records import Record

START, END = "labels-", ".jsonl"
"""What stands before and after a person's name in the name of a file."""
MAX_BYTES = 2**28
"""Maximum size of a file."""
HINT = "remove the line, or the file if it belongs to another list of images"
Labels = dict[int, str | None]
"""The class of each item that has one, by the item's number; None: the person can't tell."""


class LabelLine(Record):
    """One line of a person's file."""

    model_config = ConfigDict(populate_by_name=True)
    item: Annotated[int, Field(ge=0)]
    """Number of the item in the list, from 0."""
    label: Annotated[str | None, Field(validation_alias="class", serialization_alias="class")]
    """Name of the class; None: the person can't tell, or takes the answer back."""
    at: AwareDatetime
    """Time of the answer."""
    taken_back: bool = False
    """Whether the person takes back the answer to this item, which is open again."""

    def to_json(self) -> bytes:
        """The line, with its line break."""
        return self.model_dump_json(by_alias=True, exclude_defaults=True).encode() + b"\n"


@dataclass(frozen=True)
class LabelledItems:
    """The items that an answer may be about."""

    count: int
    """Number of items."""
    classes: Collection[str]
    """Names of the classes."""

    def has(self, line: LabelLine) -> bool:
        """Whether a line is about one of these items and classes."""
        return line.item < self.count and (line.label is None or line.label in self.classes)


def label_file(folder: Path, person: str) -> Path:
    """The file of a person's answers.

    Raises:
        UsageError: the name can't be part of a file's name.
    """
    return folder / f"{START}{validate_name(person, 'name of a person')}{END}"


def label_files(folder: Path) -> dict[str, Path]:
    """The files in a folder by the person's name, sorted."""
    return {person_of(file): file for file in sorted(folder.glob(f"{START}*{END}"))}


def person_of(file: Path) -> str:
    """The name of the person whose file it is."""
    return file.name[len(START) : -len(END)]


def read_labels(file: Path, items: LabelledItems) -> Labels:
    """A person's answers, those that were taken back left out, in the order in which they were given.

    A last line without an end, as a crash leaves it, does not count.

    Raises:
        InputError: the file can't be read; a line is damaged, or names an item or a class that the list does not have.
    """
    labels: Labels = {}
    for line in _lines(file, items):
        labels.pop(line.item, None)
        if not line.taken_back:
            labels[line.item] = line.label
    return labels


def _lines(file: Path, items: LabelledItems) -> Iterator[LabelLine]:
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{file} can't be read: {error.strerror}", "check its permissions") from None
    if len(content) > MAX_BYTES:
        raise InputError(f"{file} is larger than {MAX_BYTES >> 20} MiB", "check that it is the right file")
    for number, text in enumerate(content.split(b"\n")[:-1], 1):
        try:
            line = LabelLine.model_validate_json(text)
        except ValidationError:
            raise InputError(f"{file} is damaged in line {number}", HINT) from None
        if not items.has(line):
            raise InputError(f"{file} line {number} names an item or a class that is not in the list", HINT)
        yield line


class LabelFile:
    """A person's file, open for more answers. One process at a time has it open: `open_labels`.

    Args:
        path: the file, which is created.
        items: what the answers are about.

    Attributes:
        person: the person's name.
        labels: the answers so far, in the order in which they were given.

    Raises:
        InputError: the file is damaged. An incomplete last line, as a crash leaves it, is removed instead.
        OSError: it can't be written.
    """

    def __init__(self, path: Path, items: LabelledItems):
        self.path, self.items, self.person = path, items, person_of(path)
        path.touch()
        self.labels = read_labels(path, items)
        self._file: BinaryIO = path.open("rb+", buffering=0)
        content = self._file.read()
        self._size = len(content[: content.rfind(b"\n") + 1])
        self._file.truncate(self._size)

    def answer(self, item: int, label: str | None) -> None:
        """Keep an answer; it is on disk when this returns.

        Args:
            item: number of the item.
            label: the class; None: can't tell.

        Raises:
            InputError: it can't be written; the file is as before.
        """
        line = LabelLine(item=item, label=label, at=datetime.now(UTC))
        assert self.items.has(line)
        self._write(line)
        self.labels.pop(item, None)
        self.labels[item] = label

    def undo(self) -> int | None:
        """Take back the last answer, and return the number of its item; None if there is no answer.

        Raises:
            InputError: it can't be written; the file is as before.
        """
        item = next(reversed(self.labels), None)
        if item is not None:
            self._write(LabelLine(item=item, label=None, at=datetime.now(UTC), taken_back=True))
            del self.labels[item]
        return item

    def _write(self, line: LabelLine) -> None:
        content = line.to_json()
        try:
            self._file.seek(self._size)
            if self._file.write(content) < len(content):
                raise OSError(0, "the disk is full")
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(self._size)
            what = f"{self.path} can't be written: {error.strerror}"
            raise InputError(what, "free some space, then answer again") from None
        self._size += len(content)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextmanager
def open_labels(folder: Path, person: str, items: LabelledItems) -> Iterator[LabelFile]:
    """Open the file of a person for more answers, and let no other process do so.

    Raises:
        UsageError: another process has it open, or the name can't be part of a file's name.
        InputError: it is damaged.
        OSError: it can't be written.
    """
    path = label_file(folder, person)
    with lock(path.with_name(f".{path.name}.lock")) as free:
        if not free:
            what = f"{person} is labelling already: another process writes {path}"
            raise UsageError(what, "use the page that is open, or stop it; another person takes another name")
        file = LabelFile(path, items)
        try:
            yield file
        finally:
            file.close()


@dataclass(frozen=True)
class Disagreement:
    """An item that people gave different classes."""

    item: int
    """Number of the item."""
    answers: Mapping[str, str]
    """The class that each person gave, by name; who could not tell is not among them."""
    settled: str | None
    """The class that most gave; None: no class has more than every other."""


@dataclass(frozen=True)
class MergedLabels:
    """The answers of all people together."""

    labels: Mapping[int, str | None]
    """The class of each item that is settled, ascending; None: everybody who was asked can't tell."""
    disagreements: tuple[Disagreement, ...]
    """The items with different classes, ascending. Those without a majority are in `labels` of no class: they are open
    until one more person has answered."""
    twice: int
    """Number of items to which two people or more gave a class."""


def merge(answers: Mapping[str, Mapping[int, str | None]]) -> MergedLabels:
    """Merge the answers of people.

    An item has the class that most people gave it. A class counts more than "can't tell".

    Args:
        answers: each person's labels, by name, as `read_labels` returns them.

    Example:
        >>> merge({"ana": {0: "dog", 1: "cat"}, "ben": {0: "dog", 1: "dog"}}).labels
        {0: 'dog'}
    """
    labels: Labels = {}
    disagreements, twice = [], 0
    for item in sorted(set[int]().union(*answers.values())):
        given = {person: own[item] for person, own in answers.items() if item in own}
        classes = {person: label for person, label in given.items() if label is not None}
        twice += len(classes) > 1
        settled = _majority(classes)
        if len(set(classes.values())) > 1:
            disagreements.append(Disagreement(item, classes, settled))
        if settled is not None or not classes:
            labels[item] = settled
    return MergedLabels(labels, tuple(disagreements), twice)


def _majority(classes: Mapping[str, str]) -> str | None:
    counts = Counter(classes.values()).most_common(2)
    if not counts or (len(counts) == 2 and counts[0][1] == counts[1][1]):
        return None
    return counts[0][0]


def read_merged(folder: Path, items: LabelledItems) -> MergedLabels:
    """The answers in all files of a folder, merged; as `read_labels`."""
    return merge({person: read_labels(file, items) for person, file in label_files(folder).items()})
