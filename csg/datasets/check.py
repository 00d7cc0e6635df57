"""The check of a dataset before work begins on it: images that can't be used are found now, not hours later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from csg.console import log
from csg.datasets.contents import count_values
from csg.datasets.dataset_scan import DatasetScan
from csg.datasets.segmentation import SegmentationDataset
from csg.errors import InputError
from csg.images import decode

SAMPLE = 100
"""Masks whose pixels are counted."""
SHOWN = 10
"""Lines about single images."""
MANY_IGNORED = 0.5
"""Share of ignored pixels above which a user is warned."""


class ScannedImages(Protocol):
    """A ClassificationDataset or a SegmentationDataset."""

    @property
    def name(self) -> str: ...
    @property
    def paths(self) -> tuple[Path, ...]: ...
    @property
    def scan(self) -> DatasetScan: ...
    def __len__(self) -> int: ...


def check_dataset(images: ScannedImages, on_unreadable: Literal["fail", "skip"], option: str) -> None:
    """Find what can't be used: from all headers, and for masks from the pixels of a sample. The log says what is there.

    Args:
        images: the dataset.
        on_unreadable: whether an image that can't be used is an error, or is left out and counted.
        option: how a user leaves such images out, for the error.

    Raises:
        InputError: an image can't be used, and `on_unreadable` is "fail"; no image can be used; or not one pixel of the
            masks counts.
    """
    log(f"{images.name}: {len(images):,} images{describe_sizes(images.scan.images.sizes)}")
    problems = images.scan.problems
    if isinstance(images, SegmentationDataset):
        sample = [int(index) for index in sample_of(len(images), SAMPLE) if index not in problems]
        counts, unreadable = count_values(images, sample)
        problems = problems | unreadable | unknown_values(images, counts)
        if hint := images.train_id_hint(counts):
            log(f"warning: {images.name}: {hint}")
        _refuse(images, problems, on_unreadable, option)
        _check_ignored(images, {index: row for index, row in counts.items() if index not in problems})
    else:
        _refuse(images, problems, on_unreadable, option)


def sample_of(count: int, size: int) -> np.ndarray:
    """At most `size` evenly spaced indices below `count`, in order: int64 (M,)."""
    return np.unique(np.linspace(0, count - 1, min(size, count)).round().astype(np.int64))


def describe_sizes(sizes: Counter[tuple[int, int]]) -> str:
    """The sizes of images in a few words.

    Example:
        >>> describe_sizes(Counter({(1914, 1052): 24964, (1914, 1046): 2}))
        ': 1914 x 1052 (24,964), 1914 x 1046 (2)'
    """
    if not sizes:
        return ""
    shown = [f"{width} x {height}" for width, height in sorted(sizes, key=lambda size: size[0] * size[1])]
    if len(sizes) == 1:
        return f", all {shown[0]}"
    if len(sizes) > 3:
        return f" of {len(sizes)} sizes, from {shown[0]} to {shown[-1]}"
    return ": " + ", ".join(f"{width} x {height} ({count:,})" for (width, height), count in sizes.most_common())


def unknown_values(scenes: SegmentationDataset, counts: Mapping[int, np.ndarray]) -> dict[int, str]:
    """The masks with values that are not in the label set, by index, and which values.

    Args:
        scenes: the dataset.
        counts: pixels of each value, int64 (256,), of some of its masks by index.
    """
    found = {index: scenes.unknown_values(index, np.flatnonzero(row)) for index, row in counts.items()}
    return {index: problem for index, problem in found.items() if problem}


def unusable_error(images: ScannedImages, problems: Mapping[int, str]) -> InputError:
    """The error for images that can't be used, with their number, the first one, and what to do about it.

    Args:
        images: the dataset.
        problems: why images can't be used, by their indices; at least one.
    """
    first, count, hint = min(problems), len(problems), "repair or remove it"
    try:
        if isinstance(images, SegmentationDataset):
            images.load(first)
        else:
            decode(images.paths[first])
    except InputError as error:
        hint = error.hint
    number = "none" if count == len(images) else f"{count:,}"
    able = "can" if count == len(images) else "can't"
    why = f"the first because {problems[first]}" if count > 1 else problems[first]
    return InputError(f"{number} of {len(images):,} images of {images.name} {able} be used: {why}", hint)


def _refuse(
    images: ScannedImages, problems: Mapping[int, str], on_unreadable: Literal["fail", "skip"], option: str
) -> None:
    """Raise InputError for images that can't be used, or say that they are left out."""
    if not problems:
        return
    count, total, skipped = len(problems), len(images), on_unreadable == "skip" and len(problems) < len(images)
    if skipped or count > 1:
        log(f"{count:,} of {total:,} images of {images.name} can't be used{' and are left out' if skipped else ''}:")
        for index in sorted(problems)[:SHOWN]:
            log(f"  {problems[index]}")
        if count > SHOWN:
            log(f"  and {count - SHOWN:,} more")
    if not skipped:
        error = unusable_error(images, problems)
        others = f", or leave such images out: {option}, or a list file without them" if count < total else ""
        raise InputError(error.message, error.hint + others)


def _check_ignored(scenes: SegmentationDataset, counts: Mapping[int, np.ndarray]) -> None:
    """Say how many pixels are ignored.

    Raises:
        InputError: all are.
    """
    shares, of = scenes.value_shares(counts), f" (of {len(counts):,} masks)" if len(counts) < len(scenes) else ""
    if not any(shares.classes.values()) and len(counts) < len(scenes):
        counts, _ = count_values(scenes, [index for index in range(len(scenes)) if index not in scenes.scan.problems])
        shares, of = scenes.value_shares(counts), ""
    if not any(shares.classes.values()):
        hint = scenes.train_id_hint(counts) or f"check that they hold values of label set {scenes.labels.name}"
        raise InputError(f"not one pixel of the masks of {scenes.name} counts: all are ignored", hint)
    line = f"{scenes.name}: {100 * shares.ignored:.1f} % of the pixels{of} are ignored"
    log(f"warning: {line}; check the label set {scenes.labels.name}" if shares.ignored > MANY_IGNORED else line)
