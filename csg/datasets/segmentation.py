"""Images with masks on disk: folders with `images/` and `labels/` (GTA5, CamVid, your own), Cityscapes' tree, list
files, the embedded real scenes. Synthetic training images and real images are read in the same way.

A label set gives the values in the masks a meaning: `labels.yaml` in the folder, or the one that is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from csg.card import ClassSpec
from csg.datasets.cityscapes import MASK_SUFFIXES, is_cityscapes, read_cityscapes
from csg.datasets.dataset_scan import DatasetScan, scan_dataset
from csg.datasets.label_sets import CITYSCAPES_IDS, UNKNOWN, LabelSet, read_label_set, sets_with_values
from csg.datasets.mask_values import VALUES, ValueShares, train_id_hint, value_shares
from csg.datasets.masks import read_mask
from csg.datasets.pairing import Pairs, pair
from csg.datasets.scene_lists import read_scene_list
from csg.errors import InputError
from csg.files import absolute
from csg.images import decode
from csg.locks import cached_folder

EMBEDDED_SCENES = "digit-scenes"
LABELS_FILE = "labels.yaml"


@dataclass(frozen=True)
class SegmentationDataset:
    """Image files and their masks."""

    name: str
    """Name of the dataset."""
    labels: LabelSet
    """The label set of the masks."""
    paths: tuple[Path, ...]
    """The image files."""
    masks: tuple[Path, ...]
    """The mask file of each image."""
    tables: tuple[np.ndarray, ...]
    """For each mask, the class index of each mask value, uint8 (256,) (`LabelSet.id_table`)."""
    notes: tuple[str, ...] = ()
    """What a user has to know about how the sources were read, such as files that were passed over."""

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def class_spec(self) -> ClassSpec:
        """The classes of a model that is trained on these images."""
        return ClassSpec(self.labels.names, self.labels.name, self.labels.colours)

    @cached_property
    def scan(self) -> DatasetScan:
        """What the files are; each is read once, or not at all if it has not changed since the last scan."""
        return scan_dataset(self.labels.names, (table.tobytes() for table in self.tables), self.paths, self.masks)

    def fingerprint(self) -> str:
        """SHA-256 of the classes, of each file's name and content, and of the meaning of the masks' values; not of the
        folder they are in."""
        return self.scan.fingerprint

    def subset(self, indices: np.ndarray, name: str) -> SegmentationDataset:
        """The images at `indices`, int (M,), as a dataset with another name."""
        return replace(
            self,
            name=name,
            paths=tuple(self.paths[i] for i in indices),
            masks=tuple(self.masks[i] for i in indices),
            tables=tuple(self.tables[i] for i in indices),
        )

    def load(self, index: int) -> tuple[Image.Image, np.ndarray]:
        """Read an image and its mask.

        Returns:
            The RGB image, and the class index of each pixel, uint8 (H, W), IGNORED (255) for pixels that do not count.

        Raises:
            InputError: a file can't be read, the mask has another size than the image, or a value is not in the label
                set.
        """
        image = decode(self.paths[index])
        return image, self.load_labels(index, image.size)

    def load_labels(self, index: int, size: tuple[int, int]) -> np.ndarray:
        """The class indices alone, for an image whose size (width, height) is known.

        Raises:
            InputError: as `load`.
        """
        path, (width, height) = self.masks[index], size
        values = read_mask(path)
        if values.shape != (height, width):
            raise InputError(
                f"mask {path} has {values.shape[1]} x {values.shape[0]} pixels, its image {width} x {height}",
                "give both the same size",
            )
        found = self.tables[index][values]
        if (found == UNKNOWN).any():
            raise InputError(
                self.unknown_values(index, np.unique(values)),
                "name another set with --labels, or add the values to its classes or to `ignored`",
            )
        labels: np.ndarray = found
        return labels

    def unknown_values(self, index: int, values: np.ndarray) -> str:
        """Which values of a mask are not in the label set, and which sets have all of them; empty if all are in it.

        Args:
            index: of the mask.
            values: the different values in it, int (M,).
        """
        unknown = values[self.tables[index][values] == UNKNOWN]
        if not len(unknown):
            return ""
        others = ", ".join(sets_with_values(values))
        shown = ", ".join(map(str, unknown[:5]))
        return f"mask {self.masks[index]} holds {shown}, not in label set {self.labels.name}" + (
            f"; all its values are in {others}" if others else ""
        )

    def value_counts(self, index: int) -> np.ndarray:
        """The number of pixels of each value in the file of a mask, int64 (256,).

        Raises:
            InputError: as `csg.datasets.masks.read_mask`.
        """
        return np.bincount(read_mask(self.masks[index]).ravel(), minlength=VALUES)

    def value_shares(self, counts: Mapping[int, np.ndarray]) -> ValueShares:
        """What the pixels of some masks are.

        Args:
            counts: `value_counts` of the masks by their indices.

        Example:
            >>> dataset.value_shares({index: dataset.value_counts(index) for index in (0, 7)}).ignored
            0.1
        """
        return value_shares(self.labels, ((self.tables[index], row) for index, row in counts.items()))

    def train_id_hint(self, counts: Mapping[int, np.ndarray]) -> str | None:
        """A sentence if the values of some masks look like train ids that are read as other values; otherwise None.

        Args:
            counts: `value_counts` of the masks by their indices.
        """
        by_ids = self.labels.id_table()
        rows = [row for index, row in counts.items() if np.array_equal(self.tables[index], by_ids)]
        return train_id_hint(self.labels, np.sum(rows, axis=0)) if rows else None


def read_segmentation_dataset(sources: Sequence[str | Path], labels: str | None = None) -> SegmentationDataset:
    """Read one or more sources with the same label set, and join them.

    Args:
        sources: folders with images/ and labels/, Cityscapes' tree or one of its splits, list files, or `digit-scenes`
            for the embedded real scenes.
        labels: name or YAML file of the label set, for sources without `labels.yaml`.

    Raises:
        InputError: a source is missing or empty, an image has no mask, or the label sets of two sources differ.
    """
    parts = [_read_one(source, labels) for source in sources]
    for part in parts[1:]:
        if part.labels != parts[0].labels:
            raise InputError(
                f"the label sets differ: {parts[0].labels.name} of {parts[0].name}, {part.labels.name} of {part.name}",
                "use sources with the same label set",
            )
    return SegmentationDataset(
        name=" + ".join(part.name for part in parts),
        labels=parts[0].labels,
        paths=tuple(path for part in parts for path in part.paths),
        masks=tuple(path for part in parts for path in part.masks),
        tables=tuple(table for part in parts for table in part.tables),
        notes=tuple(f"{part.name}: {note}" if parts[1:] else note for part in parts for note in part.notes),
    )


def _read_one(source: str | Path, labels: str | None) -> SegmentationDataset:
    if source == EMBEDDED_SCENES:
        return _dataset(EMBEDDED_SCENES, read_label_set(EMBEDDED_SCENES), _folders(_real_scenes()))
    path = Path(source)
    if path.is_file():
        pairs = read_scene_list(path)
        of_cityscapes = pairs.masks[0].name.lower().endswith(MASK_SUFFIXES)
        chosen, notes = _label_set(path.parent, labels or (CITYSCAPES_IDS if of_cityscapes else None))
        return _dataset(path.stem, chosen, pairs, notes)
    if not path.is_dir():
        raise InputError(
            f"data {path} does not exist", "name a folder with images/ and labels/, Cityscapes' tree, or a list file"
        )
    name = absolute(path).name
    if is_cityscapes(path):
        return _dataset(name, read_label_set(labels or CITYSCAPES_IDS), read_cityscapes(path))
    chosen, notes = _label_set(path, labels)
    return _dataset(name, chosen, _folders(path), notes)


def _folders(path: Path) -> Pairs:
    """The images in images/ with their masks in labels/."""
    images, masks = path / "images", path / "labels"
    for folder in (images, masks):
        if not folder.is_dir():
            raise InputError(f"{folder} does not exist", "a dataset with masks has the folders images/ and labels/")
    return pair(images, masks)


def _label_set(folder: Path, labels: str | None) -> tuple[LabelSet, tuple[str, ...]]:
    """The label set of a folder's masks: that of its labels.yaml, or else the one that is named.

    Returns:
        The set, and a note if labels.yaml takes the place of another one.
    """
    own = folder / LABELS_FILE
    if own.is_file():
        found = read_label_set(str(own))
        known = labels is None or labels == found.name or absolute(Path(labels)) == absolute(own)
        return found, () if known else (f"the label set is {found.name} of {own}, not {labels}",)
    if labels is None:
        raise InputError(
            f"the masks of {folder} have no label set", f"name one with --labels, or add {LABELS_FILE} to the folder"
        )
    return read_label_set(labels), ()


def _dataset(name: str, labels: LabelSet, pairs: Pairs, notes: tuple[str, ...] = ()) -> SegmentationDataset:
    values = labels.id_table()
    endings = {
        "_labelids.png": labels.label_id_table(),
        "_labeltrainids.png": labels.train_id_table(),
        "_train_id.png": labels.train_id_table() if labels.is_own else values,
    }
    tables = [
        next((table for ending, table in endings.items() if mask.name.lower().endswith(ending)), values)
        for mask in pairs.masks
    ]
    return SegmentationDataset(name, labels, pairs.images, pairs.masks, tuple(tables), (*notes, *pairs.notes))


def _real_scenes() -> Path:
    """The embedded real scenes, created in the cache on first use."""
    from csg.datasets.digit_scenes import VERSION, write_real_scenes

    return cached_folder(f"digit-scenes-real-v{VERSION}", write_real_scenes)
