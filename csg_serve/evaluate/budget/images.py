"""The images of an evaluation with few labels: no labels are read, and each content is there once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from csg.console import log
from csg.datasets.classification import EMBEDDED_DIGITS, read_classification_dataset
from csg.datasets.listing import describe_passed_over, list_images
from csg.datasets.segmentation import EMBEDDED_SCENES, read_segmentation_dataset
from csg.errors import InputError
from csg.files import sha256
from csg_serve.evaluate.budget.plan import PlannedImage


@dataclass(frozen=True)
class FoundImages:
    """The images to ask the model about."""

    images: tuple[PlannedImage, ...]
    """Each content once."""
    duplicates: int
    """Images that were left out, since their content is that of another one."""
    unreadable: int
    """Files that can't be opened, and were left out."""


def find_images(data: Sequence[str], skip_unreadable: bool) -> FoundImages:
    """Find the images that sources name.

    Args:
        data: folders, searched with their sub-folders; image files; an embedded data set. Of a folder with `images/`
            and `labels/` the images alone are taken.
        skip_unreadable: leave out and count a file that can't be opened.

    Raises:
        InputError: a source does not exist, there is no image, or a file can't be opened.
    """
    found: dict[str, PlannedImage] = {}
    duplicates = unreadable = 0
    for path in (path for source in data for path in _paths(source)):
        try:
            digest = sha256(path)
        except OSError as error:
            if not skip_unreadable:
                what = f"image {path} can't be read: {error.strerror}"
                raise InputError(what, "check the file, or skip such images with --on-unreadable skip") from None
            unreadable += 1
            continue
        duplicates += digest in found
        found.setdefault(digest, PlannedImage(image=str(path), sha256=digest))
    if not found:
        raise InputError(f"there is no image in {', '.join(data)}", "name folders with images by --data")
    if duplicates:
        log(f"{duplicates:,} images are left out: their content is that of another one")
    return FoundImages(tuple(found.values()), duplicates, unreadable)


def _paths(source: str) -> tuple[Path, ...]:
    if source == EMBEDDED_DIGITS:
        return read_classification_dataset((source,), tuple("0123456789")).paths
    if source == EMBEDDED_SCENES:
        return read_segmentation_dataset((source,), None).paths
    path = Path(source)
    if path.is_file():
        return (path,)
    if not path.is_dir():
        raise InputError(f"there is no image and no folder {source}", "check the path given to --data")
    if (path / "images").is_dir() and (path / "labels").is_dir():
        path = path / "images"
    listing = list_images(path)
    if listing.passed_over:
        log(f"{source}: {describe_passed_over(listing.passed_over)}")
    return listing.images
