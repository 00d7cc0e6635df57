"""Which mask belongs to which image: by their names, in the same sub-folders."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from csg.datasets.listing import describe_passed_over, is_hidden, list_images
from csg.errors import InputError
from csg.images import SUFFIXES

CITYSCAPES_IMAGE = "_leftImg8bit"
"""How the names of Cityscapes' images end, before the suffix."""
MASK_ENDINGS = (
    *("", "_train_id", "_labelIds", "_labelTrainIds", "_gtFine_labelIds", "_gtFine_labelTrainIds"),
    *("_gtCoarse_labelIds", "_gtCoarse_labelTrainIds"),
)
"""What follows the name of its image in the name of a mask; of several masks, the first one is taken."""
_MASK_ENDING = re.compile(f"({'|'.join(MASK_ENDINGS[1:])})$")


@dataclass(frozen=True)
class Pairs:
    """Images and their masks."""

    images: tuple[Path, ...]
    """The image files."""
    masks: tuple[Path, ...]
    """The mask of each image."""
    notes: tuple[str, ...] = ()
    """Files that were passed over, masks without an image, lines that are repeated."""


def pair(
    images: Path, masks: Path, image_endings: Collection[str] = SUFFIXES, mask_endings: Collection[str] = (".png",)
) -> Pairs:
    """The images below a folder with their masks below another one.

    images/night/x.jpg has the mask masks/night/x.png. A folder of masks without sub-folders serves images in any.

    Args:
        images: the folder of the images.
        masks: the folder of the masks.
        image_endings: how the names of images end, in lower case; other files are passed over.
        mask_endings: how the names of masks end, in lower case.

    Raises:
        InputError: there is no image, an image has no mask, or two have the same one.
    """
    found = list_images(images, image_endings)
    passed_over = [f"{images}: {describe_passed_over(found.passed_over)}"] if any(found.passed_over.values()) else []
    if not found.images:
        raise InputError(f"{images} holds no image", passed_over[0] if passed_over else "add images to it")
    finder, names = MaskFinder(masks, mask_endings), relative_names(found.images, images)
    return Pairs(found.images, finder.find_all(found.images, names), (*passed_over, *finder.notes(names)))


class MaskFinder:
    """The masks below a folder, by the names of their images."""

    def __init__(self, folder: Path, endings: Collection[str] = (".png",)):
        self.folder, self.listing = folder, list_images(folder, endings)
        self.flat = not any(entry.is_dir() for entry in os.scandir(folder) if not is_hidden(entry.name))
        self.masks: dict[str, Path] = {}
        for name, mask in zip(relative_names(self.listing.images, folder), self.listing.images, strict=True):
            if (other := self.masks.setdefault(name, mask)) is not mask:
                raise InputError(f"masks {other} and {mask} belong to the same image", "remove one")

    def find_all(self, images: Sequence[Path], names: Sequence[str]) -> tuple[Path, ...]:
        """The mask of each image.

        Args:
            images: the image files.
            names: their relative names (`relative_names`).

        Raises:
            InputError: an image has no mask, or two have the same one.
        """
        found = [self._find(name) for name in names]
        missing = [(image, name) for image, name, mask in zip(images, names, found, strict=True) if mask is None]
        if missing:
            raise self._missing(*missing[0], len(missing) - 1)
        masks = tuple([mask for mask in found if mask])
        owners: dict[Path, Path] = {}
        for image, mask in zip(images, masks, strict=True):
            if (owner := owners.setdefault(mask, image)) != image:
                raise InputError(
                    f"images {owner} and {image} have the same mask {mask}", "rename or remove one of them"
                )
        return masks

    def _find(self, name: str) -> Path | None:
        if mask := self.masks.get(self._key(name)):
            return mask
        names = list(self._names(name))
        linked = (self.folder / f"{other}.png" for other in names)  # a linked folder that was listed by another name
        return next((self.masks[other] for other in names if other in self.masks), None) or next(
            (path for path in linked if path.is_file()), None
        )

    def _key(self, name: str) -> str:
        return name.rpartition("/")[2] if self.flat else name

    def _names(self, name: str) -> Iterator[str]:
        """The names that the mask of an image may have."""
        base = self._key(name).removesuffix(CITYSCAPES_IMAGE)
        return (base + ending for ending in MASK_ENDINGS)

    def _missing(self, image: Path, name: str, others: int) -> InputError:
        """The error that an image has no mask."""
        ending = "_gtFine_labelIds" if name.endswith(CITYSCAPES_IMAGE) else ""
        expected = self.folder / f"{self._key(name).removesuffix(CITYSCAPES_IMAGE)}{ending}.png"
        more = f" ({others + 1} images have none)" if others else ""
        passed_over = {kind: count for kind, count in self.listing.passed_over.items() if kind.startswith(".")}
        hint = "add the masks, or remove the images"
        if passed_over:
            hint += f"; {self.folder}: {describe_passed_over(passed_over)}, masks are .png"
        elif other := self.masks.get(name.rpartition("/")[2]):
            hint += f"; {other} is not taken, since {self.folder} has sub-folders"
        return InputError(f"image {image} has no mask {expected}{more}", hint)

    def notes(self, names: Sequence[str]) -> list[str]:
        """What to say of masks that belong to none of the images with these relative names."""
        known = {self._key(name) for name in names}
        known |= {name.removesuffix(CITYSCAPES_IMAGE) for name in known}
        unused = [name for name in self.masks if name not in known and _MASK_ENDING.sub("", name) not in known]
        if not unused:
            return []
        first = self.masks[unused[0]]
        return [f"{len(unused)} masks have no image, such as {first}" if unused[1:] else f"mask {first} has no image"]


def relative_names(paths: Sequence[Path], folder: Path) -> list[str]:
    """The paths of files below a folder, without suffixes, as Unicode's NFC (macOS writes NFD)."""
    start = 0 if str(folder) == "." else len(os.path.join(folder, ""))  # noqa: PTH118
    return [unicodedata.normalize("NFC", os.path.splitext(str(path)[start:])[0]) for path in paths]  # noqa: PTH122
