"""What the values of a data set's masks mean: the shares of its classes, and values that look like train ids."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from csg.datasets.label_sets import IGNORED, UNKNOWN, LabelSet, label_set_names, read_label_set

VALUES = 256
"""Number of values that a mask may hold."""
SUSPICIOUS = 0.25
"""Share of the pixels without a class from which the values are taken for train ids, if all of them may be."""


@dataclass(frozen=True)
class ValueShares:
    """What the pixels of some masks are; the shares add up to 1."""

    pixels: int
    """Number of pixels."""
    classes: dict[str, float]
    """Share of each class by name, in the order of the label set."""
    ignored: float
    """Share of the pixels that are not counted."""
    unknown: dict[int, float]
    """Share of each value that is not in the label set."""


def value_shares(labels: LabelSet, counted: Iterable[tuple[np.ndarray, np.ndarray]]) -> ValueShares:
    """The shares of classes, of ignored pixels and of values that are not in the label set.

    Args:
        labels: the label set of the masks.
        counted: for each mask its table, uint8 (256,), and the number of pixels of each value, int64 (256,).
    """
    by_class, unknown = np.zeros(VALUES), np.zeros(VALUES)
    for table, counts in counted:
        by_class += np.bincount(table, weights=counts, minlength=VALUES)
        unknown += np.where(table == UNKNOWN, counts, 0)
    pixels = by_class.sum()
    share = by_class / max(1, pixels)
    return ValueShares(
        pixels=int(pixels),
        classes={name: float(share[index]) for index, name in enumerate(labels.names)},
        ignored=float(share[IGNORED]),
        unknown={int(value): float(unknown[value] / pixels) for value in np.flatnonzero(unknown)},
    )


def train_id_hint(labels: LabelSet, counts: np.ndarray) -> str | None:
    """A sentence if values that were read as those of a label set look like train ids; otherwise None.

    Train ids are class indices, 0 to K - 1, and 255 for ignored pixels (Cityscapes' labelTrainIds). Read as other
    values, most of them are ignored or are taken for other classes.

    Args:
        labels: the label set.
        counts: the number of pixels of each value in masks that are read by the set's values, int64 (256,).
    """
    as_ids, as_train_ids = labels.id_table(), labels.train_id_table()
    counts = np.where(np.arange(VALUES) == IGNORED, 0, counts)
    without_class = counts[as_ids >= UNKNOWN].sum()
    if counts[as_train_ids == UNKNOWN].any() or without_class <= SUSPICIOUS * counts.sum():
        return None
    values = np.flatnonzero(counts)
    found = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
    last = len(labels.classes) - 1
    name = _set_of_train_ids(labels, int(values.max()))
    other = f"label set {name}" if name else f"a label set with the ids 0 to {last}"
    return f"the values {found} look like train ids (class indices), not like those of {labels.name}: name {other}"


def _set_of_train_ids(labels: LabelSet, largest: int) -> str | None:
    """The set of csg's own whose values are class indices: with the same classes, or with more if a value needs it."""
    for name in label_set_names():
        known = read_label_set(name)
        fits = known.names == labels.names or (set(labels.names) < set(known.names) and largest >= len(labels.names))
        if fits and all(c.ids == (index,) for index, c in enumerate(known.classes)):
            return name
    return None
