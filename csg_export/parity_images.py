"""Images that exports are measured on: real ones, and hard ones that no data set holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from csg.card import ClassificationInput, SegmentationInput
from csg.errors import InputError
from csg.images import decode, prepare, prepare_segmentation
from csg_train.data.evaluation_batches import image_batches

HARD = "hard inputs"


@dataclass(frozen=True)
class Inputs:
    """Images to send through a graph, and what they are called: files, or pixels prepared already."""

    source: str
    spec: ClassificationInput | SegmentationInput
    paths: tuple[Path, ...] = ()
    ready: tuple[np.ndarray, ...] = ()

    def few(self, most: int) -> Inputs:
        """At most so many of these files, or batches."""
        return Inputs(self.source, self.spec, spread(self.paths, most), self.ready[:2])

    def batches(self) -> Iterator[np.ndarray]:
        """Prepared images, uint8 (B, H, W, 3); scenes, whose sizes differ, one at a time; unreadable ones left out."""
        yield from self.ready
        if isinstance(self.spec, ClassificationInput):
            yield from (images for _, images in image_batches(self.paths, self.spec, unreadable=lambda error: None))
            return
        for path in self.paths:
            try:
                yield prepare_segmentation(decode(path), self.spec).pixels[None]
            except InputError:
                continue


def spread(paths: Sequence[Path], most: int) -> tuple[Path, ...]:
    """At most so many of the paths, evenly spread over all of them."""
    return tuple(paths[i] for i in np.linspace(0, len(paths) - 1, min(most, len(paths)), dtype=int))


def hard_inputs(spec: ClassificationInput | SegmentationInput) -> Inputs:
    """Black, white, noise, a checkerboard, a single pixel, and strips, through the same preparation as any image."""
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    board = np.kron(np.indices((8, 8)).sum(0) % 2, np.ones((12, 12))).astype(np.uint8) * 255
    images = [
        Image.new("RGB", (96, 96)),
        Image.new("RGB", (96, 96), (255, 255, 255)),
        Image.fromarray(noise),
        Image.fromarray(board).convert("RGB"),
        Image.new("RGB", (1, 1), (200, 30, 30)),
        Image.fromarray(noise).resize((1000, 3)),
        Image.fromarray(noise).resize((3, 1000)),
    ]
    if isinstance(spec, ClassificationInput):
        return Inputs(HARD, spec, ready=(np.stack([prepare(image, spec) for image in images]),))
    return Inputs(HARD, spec, ready=tuple(prepare_segmentation(image, spec).pixels[None] for image in images))
