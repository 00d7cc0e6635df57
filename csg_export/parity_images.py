"""Images to compare an export on: real ones, and hard inputs that no data set contains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from csg.card import ClassificationInput, SegmentationInput
from csg.console import log
from csg.errors import InputError
from csg.images import load_segmentation, prepare, prepare_segmentation
from csg_train.data.evaluation_batches import image_batches

T = TypeVar("T")
HARD_INPUTS = "hard inputs"


@dataclass(frozen=True)
class ParityImages:
    """Images to run through a network: files, or images that are prepared already."""

    name: str
    """Name of the data set, for tables and the card."""
    spec: ClassificationInput | SegmentationInput
    """How the files are prepared."""
    paths: tuple[Path, ...] = ()
    """Image files."""
    prepared: tuple[np.ndarray, ...] = ()
    """Batches of prepared images, uint8 (B, H, W, 3)."""

    def sample(self, count: int) -> ParityImages:
        """At most `count` of the files, evenly spaced, or the first two prepared batches."""
        return ParityImages(self.name, self.spec, evenly_spaced(self.paths, count), self.prepared[:2])

    def batches(self, unreadable: list[str] | None = None) -> Iterator[np.ndarray]:
        """Prepared images, uint8 (B, H, W, 3); B is 1 for a segmenter, whose images differ in size.

        Args:
            unreadable: filled with a line for each file that can't be read. Such files are left out.
        """
        lines = [] if unreadable is None else unreadable
        yield from self.prepared
        if isinstance(self.spec, ClassificationInput):
            for _, images in image_batches(self.paths, self.spec, lambda error: lines.append(error.message)):
                yield images
            return
        for path in self.paths:
            try:
                yield load_segmentation(path, self.spec).pixels[None]
            except InputError as error:
                lines.append(error.message)

    def report(self, unreadable: Sequence[str]) -> None:
        """Say how many files could not be read.

        Raises:
            InputError: no image could be read.
        """
        first = f", the first because {unreadable[0]}" if unreadable else ""
        if not self.prepared and len(unreadable) == len(self.paths):
            raise InputError(f"no image of {self.name} can be read{first}", "check the data")
        if unreadable:
            log(f"{len(unreadable)} of {len(self.paths)} images of {self.name} were left out{first}")


def evenly_spaced(items: Sequence[T], count: int) -> tuple[T, ...]:
    """At most `count` of the items, evenly spaced over all of them."""
    return tuple(items[i] for i in np.linspace(0, len(items) - 1, min(count, len(items)), dtype=int))


def hard_inputs(spec: ClassificationInput | SegmentationInput) -> ParityImages:
    """Black, white, noise, a checkerboard, a single pixel and two thin strips, prepared like any other image."""
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
        return ParityImages(HARD_INPUTS, spec, prepared=(np.stack([prepare(image, spec) for image in images]),))
    scenes = tuple(prepare_segmentation(image, spec).pixels[None] for image in images)
    return ParityImages(HARD_INPUTS, spec, prepared=scenes)
