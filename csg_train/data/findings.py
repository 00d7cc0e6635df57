"""What `csg data check` finds out about a set of images: counts, sizes, values of masks, files that can't be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from csg.datasets.check import unknown_values
from csg.datasets.classification import ClassificationDataset
from csg.datasets.contents import count_values, find_damaged
from csg.datasets.label_sets import IGNORED, UNKNOWN, LabelSet
from csg.datasets.scan import DIGEST_BYTES
from csg.datasets.segmentation import SegmentationDataset
from csg.errors import printable
from csg.records import Record

SHOWN = 10
"""Files that are named of each kind."""
NO_FILE = bytes(DIGEST_BYTES)
Dataset = ClassificationDataset | SegmentationDataset


class DataSource(Record):
    """A source of a set."""

    name: str
    """The folder or file, as it was given."""
    images: int
    """Number of images."""


class Unusable(Record):
    """Images that a training can't use."""

    count: int
    """Their number."""
    first: tuple[str, ...] = ()
    """Why the first ones can't be used."""


class Duplicates(Record):
    """Files with the content of another file."""

    count: int
    """Number of files whose content a file before them has."""
    other_label: int = 0
    """How many of them have another class, or another mask, than that file."""
    between_sources: int = 0
    """How many of them are in another source than that file."""
    first: tuple[tuple[str, str], ...] = ()
    """The first ones: a file, and the later one with the same content. Those with another label come first."""


class MaskValue(Record):
    """A value in the masks of a set, and what it means."""

    value: int | None
    """The value; None for a class that no mask has."""
    kind: Literal["class", "ignored", "unknown"]
    """Whether it is a class, is not counted, or is not in the label set."""
    class_name: str | None
    """Name of the class."""
    share: float
    """Share of all pixels."""
    masks: int
    """Number of masks that have it."""


class Findings(Record):
    """What a set of images is."""

    name: str
    """Name of the set."""
    images: int
    """Number of images."""
    sources: tuple[DataSource, ...]
    """Where they are, in the order in which they were given."""
    notes: tuple[str, ...]
    """How the sources were read, such as files that were passed over."""
    fingerprint: str
    """SHA-256 of names, contents and labels, as runs and evaluations record it."""
    classes: dict[str, tuple[int, ...]]
    """Classification: for each class its number of images in each source."""
    label_set: str | None
    """Segmentation: name of the label set."""
    values: tuple[MaskValue, ...]
    """Segmentation: the values of the masks, in the order of the classes."""
    ignored: float | None
    """Segmentation: share of the pixels that are not counted; None if no mask can be read."""
    hint: str | None
    """Segmentation: that the masks look like train ids that are read as other values."""
    sizes: dict[str, int]
    """Number of images by size in pixels, the most frequent first."""
    formats: dict[str, int]
    """Number of images by format and mode."""
    mask_formats: dict[str, int]
    """Number of masks by format and mode."""
    unusable: Unusable
    """Images that can't be read, and masks that do not fit."""
    duplicates: Duplicates
    """Images with the same content."""


def examine(images: Dataset, sources: Sequence[DataSource]) -> tuple[Findings, dict[int, str]]:
    """Decode all files of a set, and say what they are; what is known from an earlier check is not decoded again.

    Args:
        images: the set.
        sources: where its images are, in their order.

    Returns:
        The findings; and why images can't be used, by their indices.
    """
    scan, problems = images.scan, dict(images.scan.problems)
    good = [index for index in range(len(images)) if index not in problems]
    problems |= find_damaged(images.paths, scan.images, good)
    values: tuple[MaskValue, ...] = ()
    label_set = hint = ignored = None
    if isinstance(images, SegmentationDataset):
        counts, unreadable = count_values(images, [index for index in good if index not in problems])
        problems |= unreadable | unknown_values(images, counts)
        label_set, values, hint = images.labels.name, tuple(_values(images, counts)), images.train_id_hint(counts)
        ignored = images.value_shares(counts).ignored if counts else None
    findings = Findings(
        name=printable(images.name),
        images=len(images),
        sources=tuple(sources),
        notes=tuple(printable(note) for note in images.notes),
        fingerprint=images.fingerprint(),
        classes=_classes(images, sources) if isinstance(images, ClassificationDataset) else {},
        label_set=label_set,
        values=values,
        ignored=ignored,
        hint=hint,
        sizes={f"{width} x {height}": count for (width, height), count in scan.images.sizes.most_common()},
        formats=dict(scan.images.kinds.most_common()),
        mask_formats=dict(scan.masks.kinds.most_common()),
        unusable=Unusable(
            count=len(problems), first=tuple(printable(problems[index]) for index in sorted(problems)[:SHOWN])
        ),
        duplicates=_duplicates(images, sources),
    )
    return findings, problems


def find_leaks(training: Dataset, real: Dataset) -> Duplicates:
    """The images of the real set that are in the training set too."""
    known = {digest: index for index, digest in _digests(training)}
    pairs = [(training.paths[known[digest]], real.paths[i]) for i, digest in _digests(real) if digest in known]
    return Duplicates(count=len(pairs), first=_shown(pairs))


def _digests(images: Dataset) -> Iterator[tuple[int, bytes]]:
    digests = ((index, images.scan.images.digest(index)) for index in range(len(images)))
    return ((index, digest) for index, digest in digests if digest != NO_FILE)


def _shown(pairs: Sequence[tuple[Path, Path]]) -> tuple[tuple[str, str], ...]:
    return tuple((printable(str(first)), printable(str(second))) for first, second in pairs[:SHOWN])


def _classes(images: ClassificationDataset, sources: Sequence[DataSource]) -> dict[str, tuple[int, ...]]:
    ends = np.cumsum([source.images for source in sources])
    parts = np.split(images.labels, ends[:-1])
    counts = np.stack([np.bincount(part, minlength=len(images.classes)) for part in parts], axis=1)
    return {printable(name): tuple(row) for name, row in zip(images.classes, counts.tolist(), strict=True)}


def _duplicates(images: Dataset, sources: Sequence[DataSource]) -> Duplicates:
    def label(index: int) -> object:
        return images.labels[index] if isinstance(images, ClassificationDataset) else images.scan.masks.digest(index)

    source = np.repeat(np.arange(len(sources)), [source.images for source in sources])
    first: dict[bytes, int] = {}
    pairs = [(first[digest], index) for index, digest in _digests(images) if first.setdefault(digest, index) != index]
    other_label = [pair for pair in pairs if label(pair[0]) != label(pair[1])]
    ordered = other_label + [pair for pair in pairs if label(pair[0]) == label(pair[1])]
    return Duplicates(
        count=len(pairs),
        other_label=len(other_label),
        between_sources=sum(bool(source[a] != source[b]) for a, b in pairs),
        first=_shown([(images.paths[a], images.paths[b]) for a, b in ordered[:SHOWN]]),
    )


def _values(scenes: SegmentationDataset, counts: Mapping[int, np.ndarray]) -> Iterator[MaskValue]:
    """The values that occur, in the order of their classes (also those without pixels); then ignored, unknown ones."""
    pixels, masks = Counter[tuple[int, int]](), Counter[tuple[int, int]]()
    for index, row in counts.items():
        for byte in np.flatnonzero(row).tolist():
            key = int(scenes.tables[index][byte]), byte
            pixels[key] += int(row[byte])
            masks[key] += 1
    total = pixels.total()
    missing = set(range(len(scenes.labels.names))) - {index for index, _ in pixels}
    found: list[tuple[int, int | None]] = [*pixels, *((index, None) for index in missing)]
    for index, value in sorted(found, key=lambda key: (key[0] == UNKNOWN, key[0], key[1] or 0)):
        kind, name = _meaning(scenes.labels, index)
        share, of = (0.0, 0) if value is None else (pixels[index, value] / total, masks[index, value])
        yield MaskValue(value=value, kind=kind, class_name=name, share=share, masks=of)


def _meaning(labels: LabelSet, index: int) -> tuple[Literal["class", "ignored", "unknown"], str | None]:
    if index == IGNORED:
        return "ignored", None
    return ("unknown", None) if index == UNKNOWN else ("class", labels.names[index])
