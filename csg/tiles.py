"""Large images in overlapping square tiles, so that a segmenter's memory is bounded, and their label maps joined."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from csg.card import STRIDE, SegmentationInput
from csg.images import PaddedImage, padded, prepare_segmentation

OVERLAP = 0.25  # of a tile's side, shared with each neighbour


@dataclass(frozen=True)
class Tiles:
    """An image prepared as tiles.

    parts: uint8 (side, side, 3) each, row by row. tops, lefts: where the rows and columns of tiles begin.
    """

    scene: PaddedImage
    side: int
    parts: tuple[np.ndarray, ...]
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    def restore(self, label_maps: Sequence[np.ndarray]) -> np.ndarray:
        """The image's label map in its original size, uint8, from those of the parts, (side, side) each.

        Of an overlap each tile gives the half that is nearer to its middle.
        """
        whole = np.empty(self.scene.pixels.shape[:2], np.uint8)
        maps = iter(label_maps)
        for top, bottom, start_y in _owned(self.tops, self.side, whole.shape[0]):
            for left, right, start_x in _owned(self.lefts, self.side, whole.shape[1]):
                part = next(maps)
                whole[top:bottom, left:right] = part[top - start_y : bottom - start_y, left - start_x : right - start_x]
        return self.scene.restore(whole)


def prepare_tiles(image: Image.Image, spec: SegmentationInput, side: int) -> Tiles:
    """The segmenter's inputs for one RGB image, scaled as the card says but not to a fixed size: tiles of `side`."""
    free = spec.model_copy(update={"height": None, "width": None})
    scene = prepare_segmentation(image, free)
    height, width = scene.pixels.shape[:2]
    area = padded(scene.pixels, max(side, height), max(side, width), spec.pad_colour)
    tops, lefts = _starts(height, side), _starts(width, side)
    parts = tuple(area[top : top + side, left : left + side] for top in tops for left in lefts)
    return Tiles(scene, side, parts, tops, lefts)


def _starts(length: int, side: int) -> tuple[int, ...]:
    """Where tiles begin along one axis: evenly spread, overlapping by a quarter or more, the last one at the end."""
    if length <= side:
        return (0,)
    step = side - int(OVERLAP * side)
    count = -(-(length - side) // step) + 1
    inner = (i * (length - side) / (count - 1) for i in range(count - 1))
    return (*(round(start / STRIDE) * STRIDE for start in inner), length - side)


def _owned(starts: Sequence[int], side: int, length: int) -> list[tuple[int, int, int]]:
    """Of each tile along one axis: from where to where its labels are taken, and where it begins."""
    edges = [0, *((a + side + b) // 2 for a, b in itertools.pairwise(starts)), length]
    return [(edges[i], edges[i + 1], start) for i, start in enumerate(starts)]
