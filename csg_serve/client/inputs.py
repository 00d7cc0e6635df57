"""What a program gives as images: paths, folders, patterns, the content of files, Pillow images, arrays.

Shape letters: H, W pixels of an image.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from csg.datasets.listing import list_images
from csg.errors import InputError, UsageError
from csg.images import SUFFIXES, ImageSource

Words: TypeAlias = str | os.PathLike[str]
"""A path, a folder, or a pattern such as photos/*.jpg."""
Pixels: TypeAlias = bytes | bytearray | memoryview | Image.Image | NDArray[np.uint8]
"""The content of an image file, a Pillow image, or RGB, uint8 (H, W, 3)."""
Images: TypeAlias = Words | Pixels | Iterable[Words | Pixels]
"""One image, those of a folder or a pattern, or several of them."""
TAKEN = "give a path, a folder, a pattern, the bytes of a file, a Pillow image, an array uint8 (H, W, 3), or a list"


@dataclass(frozen=True)
class GivenImage:
    """An image that a program gave."""

    name: str
    """Its path, or its number in what was given, such as 'image 2'."""
    image: ImageSource
    """The image."""


def given_images(images: Images) -> tuple[list[GivenImage], bool]:
    """The images in what a program gave, and whether several may be meant: a folder, a pattern, a list.

    Raises:
        UsageError: something in it is not an image, or an array is not uint8 (H, W, 3).
        InputError: a folder or a pattern has no image, or a folder can't be read.
    """
    if isinstance(images, str | os.PathLike):
        found = _paths(images)
        return [GivenImage(str(path), path) for path in found], found != [Path(images)]
    if isinstance(images, bytes | bytearray | memoryview | Image.Image | np.ndarray):
        return [GivenImage("image 1", _source(images, "the image"))], False
    if isinstance(images, Mapping) or not isinstance(images, Iterable) or hasattr(images, "read"):
        raise UsageError(f"{_kind(images)} is not an image", TAKEN)
    return _from_list(images), True


def _from_list(images: Iterable[Words | Pixels]) -> list[GivenImage]:
    found: list[GivenImage] = []
    for number, image in enumerate(images, 1):
        if isinstance(image, str | os.PathLike):
            found += (GivenImage(str(path), path) for path in _paths(image))
        else:
            found.append(GivenImage(f"image {number}", _source(image, f"image {number}")))
    return found


def _paths(words: Words) -> list[Path]:
    """The path itself, or the images of the folder or the pattern that it is."""
    text = os.fspath(words)
    if not isinstance(text, str) or not text:
        raise UsageError("the path of an image is empty" if not text else f"{text!r} is not a path", TAKEN)
    path = Path(text)
    if path.is_dir():
        if found := list_images(path).images:
            return list(found)
        raise InputError(f"no image in {path}/", f"images are files that end in {', '.join(sorted(SUFFIXES))}")
    if glob.has_magic(text) and not path.exists():
        matches = (Path(match) for match in sorted(glob.glob(text, recursive=True)))  # noqa: PTH207, which takes no absolute pattern
        if found := tuple(match for match in matches if match.suffix.lower() in SUFFIXES and match.is_file()):
            return list(found)
        raise InputError(f"no image matches {text}", "check the pattern; ** stands for any folders")
    return [path]


def _source(image: Any, name: str) -> ImageSource:
    if isinstance(image, bytes | Image.Image):
        return image
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    if isinstance(image, np.ndarray):
        return Image.fromarray(np.ascontiguousarray(_checked(image, name)))
    raise UsageError(f"{name} is {_kind(image)}, which is not an image", TAKEN)


def _checked(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """The array, if it is uint8 (H, W, 3)."""
    shape = array.shape
    what = f"{name} is an array of {array.dtype} {shape}, not of uint8 (H, W, 3)"
    if len(shape) == 4 and shape[3] == 3:
        raise UsageError(what, "give a list of images: list(array)")
    if len(shape) == 3 and shape[0] in (1, 3, 4) and shape[2] not in (3, 4):
        raise UsageError(what, "put the channels last: np.moveaxis(array, 0, 2)")
    if len(shape) != 3 or shape[2] != 3:
        raise UsageError(what, "give RGB: Image.fromarray(array) converts grey and RGBA images")
    if array.dtype != np.uint8:
        raise UsageError(what, "give values from 0 to 255 as uint8, for example (255 * array).round().astype(np.uint8)")
    if 0 in shape:
        raise UsageError(what, "it has no pixels")
    return array


def _kind(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
