"""Images to put load on a model with: prepared as its card says, from files or at random.

Shape letters: H W of the model's input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csg.card import ModelCard, SegmentationInput
from csg.datasets.classification import read_classification_dataset
from csg.datasets.segmentation import read_segmentation_dataset
from csg.errors import UsageError
from csg.images import decode, load, prepare_segmentation
from csg_serve.bench.load import request_bytes
from csg_serve.client.connection import ServedModel

RANDOM = 64
FREE_SIZE = (512, 1024)  # H W of random pixels for a segmenter that takes any
REQUESTS_BYTES = 2**26


@dataclass(frozen=True)
class Samples:
    """Images by number; `pixels` prepares one, uint8 (H, W, 3). labels: the class of each, in the model's order."""

    name: str
    count: int
    pixels: Callable[[int], NDArray[np.uint8]]
    labels: NDArray[np.int64] | None = None


def read_samples(card: ModelCard, sources: Sequence[str] | None) -> Samples:
    """The images of some sources; without sources, random pixels: what is computed does not depend on them.

    Raises:
        InputError: a source can't be used.
    """
    if not sources:
        return _random(card)
    spec = card.input
    if isinstance(spec, SegmentationInput):
        scenes = read_segmentation_dataset(sources, card.label_set)
        return Samples(
            scenes.name, len(scenes), lambda place: prepare_segmentation(decode(scenes.paths[place]), spec).pixels
        )
    images = read_classification_dataset(sources)
    return Samples(images.name, len(images), lambda place: load(images.paths[place], spec))


def read_labelled_samples(card: ModelCard, sources: Sequence[str]) -> Samples:
    """A classifier's images with their classes.

    Raises:
        InputError: a source can't be used, or holds classes that the model has not.
        UsageError: the model is a segmenter.
    """
    spec = card.input
    if isinstance(spec, SegmentationInput):
        raise UsageError(f"model {card.name} is a segmenter", "measure its mIoU with `csg evaluate`")
    images = read_classification_dataset(sources).in_order_of(card.classes, partly=True)
    return Samples(images.name, len(images), lambda place: load(images.paths[place], spec), images.labels)


def prepared_requests(served: ServedModel, samples: Samples, batch: int) -> list[bytes]:
    """Requests of `batch` images each, a few that differ: 64 MiB of them, at least one.

    Raises:
        InputError: an image can't be read.
        UsageError: images of different sizes don't make a batch.
    """
    requests: list[bytes] = []
    while len(requests) * batch < max(batch, samples.count):
        places = range(len(requests) * batch, (len(requests) + 1) * batch)
        requests.append(request_bytes(served, stacked([samples.pixels(place % samples.count) for place in places])))
        if len(requests[0]) * (len(requests) + 1) > REQUESTS_BYTES:
            break
    return requests


def stacked(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Images as one batch, uint8 (N, H, W, 3).

    Raises:
        UsageError: their sizes differ.
    """
    if len({image.shape for image in images}) > 1:
        raise UsageError("images of different sizes don't make a batch", "leave --batch at 1")
    return np.stack(images)


def _random(card: ModelCard) -> Samples:
    height, width = card.input.height or FREE_SIZE[0], card.input.width or FREE_SIZE[1]

    def pixels(place: int) -> NDArray[np.uint8]:
        return np.random.default_rng(place).integers(0, 256, (height, width, 3), dtype=np.uint8)

    return Samples(f"random pixels, {height} x {width}", RANDOM, pixels)
