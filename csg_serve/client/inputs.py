"""What a program gives as images: words, the content of files, Pillow images, arrays.

Shape letters: H, W pixels of an image.
"""

from __future__ import annotations

import asyncio
import glob
import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from csg.errors import UsageError
from csg.images import ImageSource
from csg_serve.client.image_sources import VIDEO_SUFFIXES, check_words, named_images
from csg_serve.client.named_image import NamedImage, named

Words: TypeAlias = str | os.PathLike[str]
"""What `csg_serve.client.image_sources.named_images` takes: a file, a folder, a pattern such as photos/*.jpg, a web
address, a video."""
Pixels: TypeAlias = bytes | bytearray | memoryview | Image.Image | NDArray[np.uint8]
"""The content of an image file, a Pillow image, or RGB, uint8 (H, W, 3)."""
Given: TypeAlias = Words | Pixels | Iterable[Words | Pixels]
"""One image, those that a word names, or several of them."""
TAKEN = "give a path, a folder, a pattern, the bytes of a file, a Pillow image, an array uint8 (H, W, 3), or a list"


def given_images(images: Given) -> tuple[AsyncGenerator[NamedImage, None], bool]:
    """The images in what a program gave, read no further than they are asked for, and whether several may be meant.

    Several may be meant by a folder, a pattern, a video, and anything with several items.

    Raises:
        UsageError: something given is not an image, or an array is not uint8 (H, W, 3); of an iterator, later.
    """
    if isinstance(images, str | os.PathLike):
        word = _word(images)
        check_words([word])
        return named_images([word]), _may_be_several(word)
    if isinstance(images, bytes | bytearray | memoryview | Image.Image | np.ndarray):
        return _memory([named(_source(images, "the image"))]), False
    if isinstance(images, Mapping) or not isinstance(images, Iterable) or hasattr(images, "read"):
        raise UsageError(f"{_kind(images)} is not an image", TAKEN)
    if not isinstance(images, list | tuple):
        return _from_iterable(images), True
    if all(isinstance(image, str | os.PathLike) for image in images):
        words = [_word(image) for image in images]
        check_words(words)
        return named_images(words), True
    return _from_items([_item(image, number) for number, image in enumerate(images, 1)]), True


async def _memory(images: Iterable[NamedImage]) -> AsyncGenerator[NamedImage, None]:
    for image in images:
        yield image


async def _from_iterable(images: Iterable[Words | Pixels]) -> AsyncGenerator[NamedImage, None]:
    """The items of an iterator, which may take its time."""
    iterator, number, end = iter(images), 0, object()
    while (image := await asyncio.to_thread(next, iterator, end)) is not end:
        number += 1
        async with aclosing(_from_items([_item(image, number)])) as found:
            async for one in found:
                yield one


async def _from_items(items: Iterable[str | Path | NamedImage]) -> AsyncGenerator[NamedImage, None]:
    for item in items:
        async with aclosing(_memory([item]) if isinstance(item, NamedImage) else named_images([item])) as found:
            async for one in found:
                yield one


def _item(image: Any, number: int) -> str | Path | NamedImage:
    if isinstance(image, str | os.PathLike):
        return _word(image)
    return NamedImage(f"number {number}", f"image-{number}", _source(image, f"image number {number}"))


def _word(word: Words) -> str | Path:
    text = os.fspath(word)
    if not isinstance(text, str) or not text:
        raise UsageError(f"{text!r} is not the path of an image", TAKEN)
    return text if isinstance(word, str) else Path(text)


def _may_be_several(word: str | Path) -> bool:
    path = Path(word)
    pattern = isinstance(word, str) and "://" not in word and glob.has_magic(word) and not os.path.lexists(word)
    return pattern or path.is_dir() or ("://" not in str(word) and path.suffix.lower() in VIDEO_SUFFIXES)


def _source(image: Any, name: str) -> ImageSource:
    if isinstance(image, Image.Image) and 0 in image.size:
        raise UsageError(f"{name} has no pixels: it is {image.width} x {image.height}", "give another one")
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
