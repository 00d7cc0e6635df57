"""What one pass over the files of a dataset shows: its fingerprint, the sizes of its images, and what can't be used."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from csg.console import progress_bar
from csg.datasets.masks import read_mask
from csg.datasets.scan import DIGEST_BYTES, MISSING, FileScan, scan_files
from csg.errors import InputError
from csg.images import decode

MASK_MODES = frozenset({"1", "L", "P", "I;16", "I"})
"""Pillow's modes of a PNG file with one channel."""
DESCRIBED = 10
"""This many masks that can't be read are decoded, to say exactly why."""


@dataclass
class FileSummary:
    """What the image files, or the mask files, of a dataset are."""

    digests: bytearray = field(default_factory=bytearray)
    """SHA-256 of each file, one after the other; zeros for a file that can't be read."""
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Number of files by width and height; without those that can't be read."""
    kinds: Counter[str] = field(default_factory=Counter)
    """The same by format and Pillow's mode, such as `PNG RGB`."""

    def add(self, scan: FileScan) -> None:
        """Count a file."""
        self.digests += scan.digest
        if not scan.problem:
            self.sizes[scan.width, scan.height] += 1
            self.kinds[f"{scan.format} {scan.mode}"] += 1

    def digest(self, index: int) -> bytes:
        """SHA-256 of a file."""
        return bytes(self.digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES])


@dataclass(frozen=True)
class DatasetScan:
    """What the files of a dataset are; their pixels are not looked at."""

    fingerprint: str
    """SHA-256, in hex, of the classes and of each image's file name, content and label or mask. The folder that the
    files are in does not matter."""
    images: FileSummary
    """The image files."""
    masks: FileSummary
    """The mask files; empty for classification."""
    problems: dict[int, str]
    """Why an image can't be used, by its index: a file is missing or can't be read, or the mask does not fit."""


def scan_dataset(
    classes: Sequence[str], labels: Iterable[bytes], paths: Sequence[Path], masks: Sequence[Path] = ()
) -> DatasetScan:
    """Scan the files of a dataset; a file that has not changed since the last scan is not read.

    Args:
        classes: class names.
        labels: for each image what the fingerprint has to hold of its label, or of the meaning of its mask's values.
        paths: image files.
        masks: the mask of each image; none for classification.
    """
    fingerprint = hashlib.sha256(json.dumps(list(classes)).encode())
    images, mask_files, problems = FileSummary(), FileSummary(), dict[int, str]()
    for index, (label, (image, mask)) in enumerate(zip(labels, _pairs(paths, masks), strict=True)):
        fingerprint.update(b"%b\0%b%b\n" % (_name(image), image.digest, label))
        images.add(image)
        problem = f"image {_shown(image)} {image.problem}" if image.problem else ""
        if mask:
            fingerprint.update(b"%b\0%b\n" % (_name(mask), mask.digest))
            mask_files.add(mask)
            problem = problem or _mask_problem(mask, len(problems) < DESCRIBED) or _size_problem(image, mask)
        if problem:
            problems[index] = problem
    return DatasetScan(fingerprint.hexdigest(), images, mask_files, problems)


def _pairs(paths: Sequence[Path], masks: Sequence[Path]) -> Iterator[tuple[FileScan, FileScan | None]]:
    with progress_bar("reading files", len(paths) + len(masks)) as advance:
        if masks:
            scans = scan_files(chain.from_iterable(zip(paths, masks, strict=True)), advance)
            yield from zip(scans, scans, strict=True)
        else:
            yield from ((scan, None) for scan in scan_files(paths, advance))


def _name(scan: FileScan) -> bytes:
    return scan.path.rpartition(b"/")[2]


def _shown(scan: FileScan) -> str:
    return os.fsdecode(scan.path)


def _mask_problem(mask: FileScan, exactly: bool) -> str:
    """Why a mask can't be read; empty if its header says nothing against it."""
    if mask.format == "PNG" and mask.mode in MASK_MODES:
        return ""
    if exactly and mask.problem != MISSING:
        try:
            read_mask(Path(_shown(mask)))
        except InputError as error:
            return error.message
    return f"mask {_shown(mask)} {mask.problem or f'is {mask.format} {mask.mode}, not a PNG file with one channel'}"


def _size_problem(image: FileScan, mask: FileScan) -> str:
    """How the sizes of an image and its mask differ; empty if they do not."""
    width, height = image.width, image.height
    if (mask.width, mask.height) == (height, width) != (width, height) and image.format == "PNG":
        try:  # it may be turned by EXIF data behind its pixels, which its header does not show
            width, height = decode(Path(_shown(image))).size
        except InputError as error:
            return error.message
    if (mask.width, mask.height) == (width, height):
        return ""
    return f"mask {_shown(mask)} has {mask.width} x {mask.height} pixels, its image {width} x {height}"
