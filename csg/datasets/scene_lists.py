"""List files of images with masks: lines `image mask`, or images alone whose masks are found by name.

An image alone is a path or a bare name (00001.png, as in the published list of GTA5), in a folder images/ or, for
Cityscapes, leftImg8bit/; its mask is where it would be without a list.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from csg.datasets.cityscapes import IMAGES, MASK_SUFFIXES, masks_of
from csg.datasets.list_files import ListFile, header_words, read_list
from csg.datasets.listing import list_images
from csg.datasets.pairing import MaskFinder, Pairs
from csg.errors import InputError
from csg.files import absolute

MASK_WORDS = frozenset({"mask", "masks", "label", "labels", "annotation", "target"})
"""Words of a header over the column of the masks."""
_BELOW_IMAGES = re.compile(rf"(.*/(?:images|{IMAGES}))/(.+)")


def read_scene_list(path: Path) -> Pairs:
    """Read a list file of images with masks.

    Raises:
        InputError: a line is malformed, an image has two masks or none, or files are not where the list says.
    """
    listed = read_list(path)
    fields = len(listed.header or listed.lines[0].fields)
    for line in listed.lines:
        if len(line.fields) != fields or fields > 2:
            found = f"{len(line.fields)} fields" if line.fields[1:] else "no mask"
            raise InputError(
                f"{listed.where(line)} has {found}: {' '.join(line.fields)[:80]}",
                "write 'image mask' in every line or 'image' in every line, and paths with spaces in double quotes",
            )
    pairs = _two_columns(listed) if fields == 2 else _one_column(listed)
    return replace(pairs, notes=(*listed.notes, *pairs.notes, *_repeated(listed, pairs)))


def _two_columns(listed: ListFile) -> Pairs:
    masks_first = bool(listed.header) and not header_words(listed.header[0]).isdisjoint(MASK_WORDS)
    first = listed.lines[0].fields[masks_first]
    if first.startswith("/") and not Path(first).is_file():  # as in DeepLab's lists: / is the folder of the data
        lines = [line._replace(fields=tuple([name.lstrip("/") for name in line.fields])) for line in listed.lines]
        listed = replace(listed, lines=tuple(lines))
    images, image_notes = listed.locate(int(masks_first))
    masks, mask_notes = listed.locate(int(not masks_first))
    return Pairs(images, masks, tuple(dict.fromkeys((*image_notes, *mask_notes))))


def _one_column(listed: ListFile) -> Pairs:
    try:
        images, notes = listed.locate(0)
    except InputError:
        folder = _folder_of_names(listed)
        if folder is None:
            raise
        images, notes = _by_name(listed, folder), ()
    return Pairs(images, _masks(listed, images), notes)


def _folder_of_names(listed: ListFile) -> Path | None:
    """The folder of images for a list of names without a path: in the list's folder or in one above it."""
    folder = listed.path.parent
    possible = (base / name for base in (folder, *absolute(folder).parents) for name in ("images", IMAGES))
    return next((images for images in possible if images.is_dir()), None)


def _by_name(listed: ListFile, folder: Path) -> tuple[Path, ...]:
    """The images that are listed by their paths below a folder, or below a sub-folder of it such as a split."""
    start, known = len(folder.parts), defaultdict[str, list[Path]](list)
    for image in list_images(folder).images:
        parts = image.parts[start:]
        for name in dict.fromkeys(("/".join(parts), "/".join(parts[1:]) or parts[0])):
            full = unicodedata.normalize("NFC", name)
            known[full].append(image)
            known[os.path.splitext(full)[0]].append(image)  # noqa: PTH122 - a name, not a path
    found = [known.get(_plain(line.fields[0], folder.name), []) for line in listed.lines]
    wrong = [(line, images) for line, images in zip(listed.lines, found, strict=True) if len(images) != 1]
    if wrong:
        (line, images), more = wrong[0], f"; in all, {len(wrong)} lines name no image" if wrong[1:] else ""
        which = f"is {images[0]} or {images[1]}" if images else f"is not in {folder}"
        raise InputError(
            f"{listed.where(line)} names {line.fields[0][:200]}, which {which}{more}",
            "correct the names, or write the paths of image and mask in every line",
        )
    return tuple([images[0] for images in found])


def _plain(name: str, folder: str) -> str:
    """A path below a folder, which it may begin with."""
    plain = unicodedata.normalize("NFC", name.replace("\\", "/"))
    return plain.removeprefix("./").lstrip("/").removeprefix(f"{folder}/")


def _masks(listed: ListFile, images: Sequence[Path]) -> tuple[Path, ...]:
    """The masks of images by their names."""
    folders, names = [], []
    for line, image in zip(listed.lines, images, strict=True):
        match = _BELOW_IMAGES.fullmatch(str(absolute(image)))
        if match is None:
            raise InputError(
                f"{listed.where(line)} names {image} without a mask, and it is in no folder images/",
                "write 'image mask' in every line",
            )
        folders.append(match[1])
        names.append(unicodedata.normalize("NFC", os.path.splitext(match[2])[0]))  # noqa: PTH122
    masks: dict[Path, Path] = {}
    for folder in dict.fromkeys(folders):
        finder = _finder(Path(folder))
        rows = [row for row, other in enumerate(folders) if other == folder]
        some = [images[row] for row in rows]
        masks.update(zip(some, finder.find_all(some, [names[row] for row in rows]), strict=True))
    return tuple([masks[image] for image in images])


def _finder(images: Path) -> MaskFinder:
    if images.name == IMAGES:
        return MaskFinder(masks_of(images), MASK_SUFFIXES)
    masks = images.parent / "labels"
    if not masks.is_dir():
        raise InputError(f"{masks} does not exist", "put the masks there, or write 'image mask' in every line")
    return MaskFinder(masks)


def _repeated(listed: ListFile, pairs: Pairs) -> Iterator[str]:
    """Notes if images are listed more than once, or masks for more than one image.

    Raises:
        InputError: an image has two masks.
    """
    first: dict[Path, int] = {}
    for row, image in enumerate(pairs.images):
        before = first.setdefault(image, row)
        if pairs.masks[before] != pairs.masks[row]:
            raise InputError(
                f"{listed.where(listed.lines[row])}: image {image} has mask {pairs.masks[row]}, and in line "
                f"{listed.lines[before].number} mask {pairs.masks[before]}",
                "remove one of the two lines",
            )
    if again := len(pairs.images) - len(first):
        yield f"{again} line{'s name images that are' if again > 1 else ' names an image that is'} listed before"
    if len(set(pairs.masks)) < len(first):
        yield f"{len(first)} images have {len(set(pairs.masks))} masks: some share one"
