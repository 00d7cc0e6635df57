"""Label maps as images: PNG files with a palette, overlays, images side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from csg.card import Colour
from csg.datasets.label_sets import IGNORED

OPACITY = 0.55
"""Opacity of the class colours in an overlay."""


def png_bytes(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def palette_png(label_map: np.ndarray, colours: Sequence[Colour]) -> bytes:
    """A label map as an indexed PNG file.

    Args:
        label_map: class indices, uint8 (H, W); IGNORED (255) is black.
        colours: RGB of each class, the palette.
    """
    image = Image.fromarray(label_map)
    image.putpalette(_palette(colours).tobytes())
    return png_bytes(image)


def overlay(image: Image.Image, label_map: np.ndarray, colours: Sequence[Colour]) -> Image.Image:
    """An RGB image with the class colours laid over it.

    Args:
        image: the RGB image, (W, H).
        label_map: class indices, uint8 (H, W); pixels that are IGNORED (255) keep their colour.
        colours: RGB of each class.
    """
    pixels = np.asarray(image, np.float32)
    mixed = (1 - OPACITY) * pixels + OPACITY * _palette(colours)[label_map]
    counted = (label_map != IGNORED)[..., None]
    return Image.fromarray(np.where(counted, mixed, pixels).round().astype(np.uint8))


def side_by_side(*images: Image.Image) -> Image.Image:
    """The images in a row, aligned at the top."""
    row = Image.new("RGB", (sum(image.width for image in images), max(image.height for image in images)))
    left = 0
    for image in images:
        row.paste(image, (left, 0))
        left += image.width
    return row


def _palette(colours: Sequence[Colour]) -> np.ndarray:
    """RGB of each index, uint8 (256, 3); black for an index that is no class."""
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colours)] = colours
    return palette
