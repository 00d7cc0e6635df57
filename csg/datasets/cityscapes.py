"""Cityscapes' tree: leftImg8bit/{split}/{city}/*_leftImg8bit.png with gtFine/{split}/{city}/*_gtFine_labelIds.png.

Paths are taken as they are given: leftImg8bit and gtFine may be links to folders with other names. Only where no masks
are beside leftImg8bit as it is given, they are looked for beside the folder that it links to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from csg.datasets.pairing import CITYSCAPES_IMAGE, Pairs, pair
from csg.errors import InputError
from csg.images import SUFFIXES

IMAGES = "leftImg8bit"
SPLITS = frozenset({"train", "val", "test", "train_extra"})
IMAGE_SUFFIXES = tuple(f"{CITYSCAPES_IMAGE}{suffix}".lower() for suffix in sorted(SUFFIXES))
MASK_SUFFIXES = ("_labelids.png", "_labeltrainids.png")
MASKS = ("gtFine", "gtCoarse", "../gtFine_trainvaltest/gtFine", "../gtFine", "../gtCoarse", "../gtCoarse/gtCoarse")
"""Where the masks may lie, from the folder that holds leftImg8bit: beside it, or where Cityscapes' archives are
unpacked in folders of their own."""


def is_cityscapes(path: Path) -> bool:
    """Whether a folder is Cityscapes' tree or a part of its images."""
    return (path / IMAGES).is_dir() or any(IMAGES in spelled.parts for spelled in _spellings(path))


def read_cityscapes(path: Path) -> Pairs:
    """The images and masks of a tree.

    Args:
        path: the root of a tree with one split, or leftImg8bit/{split}, or the folder of a city.

    Raises:
        InputError: the tree has several splits, or no masks; and as `csg.datasets.pairing.pair`.
    """
    images = path / IMAGES if (path / IMAGES).is_dir() else path
    splits = sorted(split for split in SPLITS if (images / split).is_dir())
    if len(splits) > 1:
        example = images / ("train" if "train" in splits else splits[-1])
        raise InputError(f"{path} holds the splits {', '.join(splits)}", f"name one, for example {example}")
    return pair(images, masks_of(images, *splits), IMAGE_SUFFIXES, MASK_SUFFIXES)


def masks_of(images: Path, split: str = "") -> Path:
    """The folder of the masks for leftImg8bit or a folder below it.

    Args:
        images: the folder.
        split: a sub-folder that the masks have to have.

    Raises:
        InputError: there is none.
    """
    possible = [folder for spelled in _spellings(images) for folder in _beside(spelled)]
    for folder in possible:
        if (folder / split).is_dir():
            return folder
    raise InputError(f"the masks of {images} are not in {possible[0] / split}", "put or link gtFine beside leftImg8bit")


def _spellings(path: Path) -> Iterator[Path]:
    """A path as it is given, from the root, and with links followed."""
    return iter((path, path.absolute(), Path(os.path.realpath(path))))


def _beside(images: Path) -> Iterator[Path]:
    """Where the masks of a folder of images may lie."""
    if IMAGES in images.parts:
        above, below = images, list[str]()
        while above.name != IMAGES:
            above, below = above.parent, [above.name, *below]
        yield from (Path(above.parent, masks, *below) for masks in MASKS)
