"""Pillow's images, of every mode and orientation, as upright 8-bit RGB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import numpy as np
from PIL import Image
from PIL.ExifTags import Base

MAX_PROFILE = 2**17
"""Maximum length of EXIF data as hexadecimal text, twice of what fits into a JPEG."""
STRIP = 2**20
"""Pixels that are converted to RGB at a time, where that needs more memory than the image."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What to do for an EXIF orientation; from 5 on width and height are swapped."""


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8. It swaps width and height from 5 on."""
    with suppress(Exception):  # a broken EXIF block: no orientation
        profile = image.info.get("Raw profile type exif", "")
        if len(profile) <= MAX_PROFILE and (found := image.getexif().get(Base.Orientation)) in TURNS:
            return int(found)
    return 1


def upright(image: Image.Image) -> Image.Image:
    """The image with its EXIF orientation applied, and without it in its data."""
    method = TURNS.get(orientation(image))
    if method is None:
        return image
    turned = image.transpose(method)
    turned.info = {key: value for key, value in image.info.items() if key == "transparency"}
    return turned


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as 8-bit RGB, with alpha over black. Of 16 bits, the upper 8 are kept."""
    if image.mode.startswith("I") or image.mode == "F":  # more than 8 bits a channel: Pillow's own conversion clips
        wide = image.mode.startswith("I;16") or any(_numbers(part).max(initial=0) > 255 for _, part in _strips(image))
        return _by_strips(image, partial(_narrowed, factor=255 / 65535 if wide else 1.0))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return _by_strips(image, _over_black)
    return image if image.mode == "RGB" else image.convert("RGB")


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Parts of an image of about STRIP pixels from top to bottom, each with its first row."""
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _by_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    rgb = Image.new("RGB", image.size)
    for top, part in _strips(image):
        rgb.paste(convert(part), (0, top))
    return rgb


def _numbers(image: Image.Image) -> np.ndarray:
    return np.asarray(np.nan_to_num(np.asarray(image, np.float32)))


def _narrowed(image: Image.Image, factor: float) -> Image.Image:
    values = _numbers(image) * np.float32(factor)
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8)).convert("RGB")


def _over_black(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image).convert("RGB")
