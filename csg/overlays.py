"""Label maps as people look at them: PNG files with the palette, overlays, comparisons side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from csg.card import Colour
from csg.datasets.label_sets import IGNORED

OPACITY = 0.55


def png(image: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def palette_png(label_map: np.ndarray, colours: Sequence[Colour]) -> bytes:
    """An indexed PNG: class indices as values, the classes' colours as palette; 255 is black."""
    image = Image.fromarray(label_map)
    image.putpalette(_palette(colours).tobytes())
    return png(image)


def overlay(image: Image.Image, label_map: np.ndarray, colours: Sequence[Colour]) -> Image.Image:
    """The RGB image under its label map's colours; ignored pixels stay as they are."""
    pixels = np.asarray(image, np.float32)
    mixed = (1 - OPACITY) * pixels + OPACITY * _palette(colours)[label_map]
    counted = (label_map != IGNORED)[..., None]
    return Image.fromarray(np.where(counted, mixed, pixels).round().astype(np.uint8))


def side_by_side(*images: Image.Image) -> Image.Image:
    """Images of one height in a row."""
    row = Image.new("RGB", (sum(image.width for image in images), max(image.height for image in images)))
    left = 0
    for image in images:
        row.paste(image, (left, 0))
        left += image.width
    return row


def _palette(colours: Sequence[Colour]) -> np.ndarray:
    """RGB of each value, uint8 (256, 3)."""
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colours)] = colours
    return palette
