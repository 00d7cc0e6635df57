"""Large images as overlapping square tiles, so that the memory of a segmenter is bounded; and the joined label map."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from csg.card import STRIDE, SegmentationInput
from csg.images import ImageSource, PaddedImage, load_segmentation, pad

OVERLAP = 0.25
"""Minimum overlap of neighbouring tiles, as a share of a tile's side."""


@dataclass(frozen=True)
class Tiles:
    """An image as tiles."""

    padded: PaddedImage
    """The whole image, prepared for the segmenter."""
    side: int
    """Side of a tile in pixels."""
    tiles: tuple[np.ndarray, ...]
    """The tiles, uint8 (side, side, 3) each, row by row."""
    tops: tuple[int, ...]
    """First pixel row of each row of tiles."""
    lefts: tuple[int, ...]
    """First pixel column of each column of tiles."""

    def restore(self, label_maps: Sequence[np.ndarray]) -> np.ndarray:
        """The label map of the image in its original size, uint8 (H, W).

        Of an overlap, each tile gives the half that is nearer to its centre.

        Args:
            label_maps: the label map of each tile, uint8 (side, side), in the order of `tiles`.
        """
        height, width = self.padded.pixels.shape[:2]
        whole = np.empty((height, width), np.uint8)
        maps = iter(label_maps)
        for top, bottom, start_y in _owned(self.tops, self.side, height):
            for left, right, start_x in _owned(self.lefts, self.side, width):
                tile = next(maps)
                whole[top:bottom, left:right] = tile[top - start_y : bottom - start_y, left - start_x : right - start_x]
        return self.padded.restore(whole)


def load_tiles(source: ImageSource, spec: SegmentationInput, side: int, name: str | None = None) -> Tiles:
    """Decode an image and cut it into tiles, scaled as `spec` says but not to a fixed size.

    Args:
        source: a file, the content of one, or an image of Pillow's.
        spec: the input of the model.
        side: side of a tile in pixels, a multiple of 8.
        name: the image's name in an error; by default the path.

    Raises:
        InputError: as `csg.images.decode`.
    """
    padded = load_segmentation(source, spec.model_copy(update={"height": None, "width": None}), name)
    height, width = padded.pixels.shape[:2]
    area = pad(padded.pixels, max(side, height), max(side, width), spec.pad_colour)
    tops, lefts = _starts(height, side), _starts(width, side)
    tiles = tuple(area[top : top + side, left : left + side] for top in tops for left in lefts)
    return Tiles(padded=padded, side=side, tiles=tiles, tops=tops, lefts=lefts)


def _starts(length: int, side: int) -> tuple[int, ...]:
    """First pixels of the tiles along one axis: evenly spread multiples of 8; the last tile ends at the edge."""
    if length <= side:
        return (0,)
    step = side - int(OVERLAP * side)
    count = -(-(length - side) // step) + 1
    inner = (i * (length - side) / (count - 1) for i in range(count - 1))
    return (*(round(start / STRIDE) * STRIDE for start in inner), length - side)


def _owned(starts: Sequence[int], side: int, length: int) -> list[tuple[int, int, int]]:
    """For each tile along one axis: the first and the last pixel whose labels it gives, and its own first pixel."""
    edges = [0, *((a + side + b) // 2 for a, b in itertools.pairwise(starts)), length]
    return [(edges[i], edges[i + 1], start) for i, start in enumerate(starts)]
