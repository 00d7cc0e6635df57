"""Images with a mask each, for segmentation: folders `images/` + `labels/` (GTA5, CamVid, your own), Cityscapes' tree,
the embedded real scenes. Used for the synthetic training images as well as for the real ones.

A source is a folder; the label set says what the values in its masks mean: `labels.yaml` in the folder, else the one
that is named. Masks are 8-bit PNG files of one channel, palette or grey.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from csg.card import ClassSpec
from csg.datasets.label_sets import UNKNOWN, LabelSet, label_set
from csg.errors import InputError, one_line
from csg.files import atomic_directory, cache_dir
from csg.images import SUFFIXES, decode

EMBEDDED_SCENES = "digit-scenes"
OWN_LABELS = "labels.yaml"
CITYSCAPES_IMAGE = "_leftImg8bit.png"
CITYSCAPES_MASKS = ("_gtFine_labelIds.png", "_gtFine_labelTrainIds.png")


@dataclass(frozen=True)
class SegmentationDataset:
    """Image files and the mask file of each.

    tables: for each scene, mask value to class index (csg.datasets.label_sets.LabelSet.table).
    """

    name: str
    labels: LabelSet
    paths: tuple[Path, ...]
    masks: tuple[Path, ...]
    tables: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def class_spec(self) -> ClassSpec:
        """What a model that trains on these scenes is to tell apart."""
        return ClassSpec(self.labels.names, self.labels.name, self.labels.colours)

    def fingerprint(self) -> str:
        """SHA-256 over the classes and the names and sizes of the files: tells two data sets apart in seconds."""
        digest = hashlib.sha256(self.labels.model_dump_json().encode())
        for path, mask in zip(self.paths, self.masks, strict=True):
            digest.update(f"{path.name} {path.stat().st_size} {mask.name} {mask.stat().st_size}\n".encode())
        return digest.hexdigest()

    def take(self, places: np.ndarray, name: str) -> SegmentationDataset:
        """The scenes at `places`, int (M,), under another name."""
        return SegmentationDataset(
            name,
            self.labels,
            tuple(self.paths[p] for p in places),
            tuple(self.masks[p] for p in places),
            tuple(self.tables[p] for p in places),
        )

    def load(self, place: int) -> tuple[Image.Image, np.ndarray]:
        """The image, RGB, and its class indices, uint8 (H, W), IGNORED (255) where none counts.

        Raises:
            InputError: a file can't be read, the mask is no 8-bit one of the image's size, or a value has no meaning.
        """
        image = decode(self.paths[place])
        return image, self.load_labels(place, image.size)

    def load_labels(self, place: int, size: tuple[int, int]) -> np.ndarray:
        """The class indices alone, for an image whose size (width, height) is known; raises as `load`."""
        path, (width, height) = self.masks[place], size
        values = read_mask(path)
        if values.shape != (height, width):
            raise InputError(
                f"mask {path} is {values.shape[1]} x {values.shape[0]}, its image {width} x {height}",
                "give the mask the size of its image",
            )
        found = self.tables[place][values]
        if (found == UNKNOWN).any():
            unknown = sorted({int(v) for v in np.unique(values[found == UNKNOWN])})
            raise InputError(
                f"mask {path} holds {', '.join(map(str, unknown[:5]))}, unknown to label set {self.labels.name}",
                "name another set with --labels, or add the value to its classes or to `ignored`",
            )
        labels: np.ndarray = found
        return labels


def read_mask(path: Path) -> np.ndarray:
    """The values of a mask, uint8 (H, W): palette indices or grey levels.

    Raises:
        InputError: it can't be read, or has several channels or more than 8 bits.
    """
    try:
        with Image.open(path) as mask:
            if mask.mode not in ("P", "L", "1"):
                kind = "has 16 bits or more" if mask.mode[0] in "IF" else f"has the channels {mask.mode}"
                raise InputError(f"mask {path} {kind}", "a mask has one channel of 8 bits: palette or grey")
            return np.asarray(mask).astype(np.uint8)
    except FileNotFoundError:
        raise InputError(f"mask {path} is not there", "check the path") from None
    except UnidentifiedImageError:
        raise InputError(f"mask {path} can't be read: not an image file", "repair or remove it") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"mask {path} can't be read: {one_line(error)}", "repair or remove it") from None


def read_segmentation_dataset(sources: Sequence[str | Path], labels: str | None = None) -> SegmentationDataset:
    """Read one or more sources of the same label set, one after the other.

    Args:
        labels: name or YAML file of the label set, for sources without `labels.yaml`.

    Raises:
        InputError: a source is missing or empty, an image has no mask, or the label sets differ.
    """
    parts = [_read_one(source, labels) for source in sources]
    for part in parts[1:]:
        if part.labels != parts[0].labels:
            what = (
                f"the label sets differ: {parts[0].labels.name} of {parts[0].name}, {part.labels.name} of {part.name}"
            )
            raise InputError(what, "train and measure on sources of one label set")
    return SegmentationDataset(
        " + ".join(part.name for part in parts),
        parts[0].labels,
        tuple(path for part in parts for path in part.paths),
        tuple(path for part in parts for path in part.masks),
        tuple(table for part in parts for table in part.tables),
    )


def _read_one(source: str | Path, labels: str | None) -> SegmentationDataset:
    if source == EMBEDDED_SCENES:
        return _folders(_real_scenes(), label_set(EMBEDDED_SCENES), EMBEDDED_SCENES)
    path = Path(source)
    if not path.is_dir():
        raise InputError(f"data {path} is not there", "name a folder with images/ and labels/, or Cityscapes' tree")
    if "leftImg8bit" in (*path.resolve().parts, *(entry.name for entry in path.iterdir())):
        return _cityscapes(path, label_set(labels or "cityscapes19"))
    own = path / OWN_LABELS
    if own.is_file():
        return _folders(path, label_set(str(own)), path.resolve().name)
    if labels is None:
        raise InputError(
            f"what the masks of {path} mean is not said", f"name a label set with --labels, or put {OWN_LABELS} there"
        )
    return _folders(path, label_set(labels), path.resolve().name)


def _folders(path: Path, labels: LabelSet, name: str) -> SegmentationDataset:
    """images/NAME.* with labels/NAME.png."""
    images, masks = path / "images", path / "labels"
    for folder in (images, masks):
        if not folder.is_dir():
            raise InputError(f"{folder} is not there", "a set of scenes has the folders images/ and labels/")
    return _paired(name, labels, images, lambda image: [masks / f"{image.stem}.png"], SUFFIXES)


def _cityscapes(path: Path, labels: LabelSet) -> SegmentationDataset:
    """leftImg8bit/{split}/{city}/*_leftImg8bit.png with gtFine/{split}/{city}/*_gtFine_labelIds.png (or labelTrainIds).

    `path` is the tree's root, if it holds one split, or leftImg8bit/{split}, or a city's folder.
    """
    inside = "leftImg8bit" in path.resolve().parts
    images = path if inside else path / "leftImg8bit"
    splits = sorted(
        e.name for e in images.iterdir() if e.is_dir() and e.name in ("train", "val", "test", "train_extra")
    )
    if len(splits) > 1:
        raise InputError(f"{path} holds the splits {', '.join(splits)}", f"name one, for example {images / splits[0]}")

    def masks(image: Path) -> list[Path]:
        parts = list(image.parts)
        parts[len(parts) - 1 - parts[::-1].index("leftImg8bit")] = "gtFine"
        stem = Path(*parts).name.removesuffix(CITYSCAPES_IMAGE)
        return [Path(*parts).with_name(stem + ending) for ending in CITYSCAPES_MASKS]

    return _paired(path.resolve().name, labels, images, masks, frozenset({CITYSCAPES_IMAGE}))


def _paired(
    name: str, labels: LabelSet, images: Path, masks: Callable[[Path], list[Path]], endings: frozenset[str]
) -> SegmentationDataset:
    """Every image below `images` with the first of its possible masks that is there."""
    paths = sorted(f for f in images.resolve().rglob("*") if f.name.lower().endswith(tuple(e.lower() for e in endings)))
    if not paths:
        raise InputError(f"{images} holds no image", "add images to it")
    found = [next((mask for mask in masks(path) if mask.is_file()), None) for path in paths]
    missing = [path for path, mask in zip(paths, found, strict=True) if mask is None]
    if missing:
        what = f"image {missing[0]} has no mask {masks(missing[0])[0]}"
        raise InputError(what + (f", nor have {len(missing) - 1} others" if missing[1:] else ""), "add or remove them")
    table, trained = labels.table(), labels.train_ids()
    whole = tuple(mask for mask in found if mask)
    tables = tuple(trained if mask.name.endswith(CITYSCAPES_MASKS[1]) else table for mask in whole)
    return SegmentationDataset(name, labels, tuple(paths), whole, tables)


def _real_scenes() -> Path:
    """The embedded real scenes in the cache, made on first use."""
    from csg.datasets.digit_scenes import VERSION, write_real_scenes

    folder = cache_dir() / f"digit-scenes-real-v{VERSION}"
    if not folder.is_dir():
        with atomic_directory(folder) as fresh:
            write_real_scenes(fresh)
    return folder
