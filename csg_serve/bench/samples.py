"""Images for a benchmark, prepared as the model card says: from files, or random.

Shape letters: N images, H W height and width of the model's input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csg.card import ModelCard, SegmentationInput
from csg.console import log
from csg.datasets.classification import read_classification_dataset
from csg.datasets.segmentation import read_segmentation_dataset
from csg.errors import UsageError
from csg.images import load, load_segmentation
from csg_serve.bench.load import serialize_request
from csg_serve.client.connection import ServedModel

RANDOM_SAMPLES = 64
FREE_SIZE = (512, 1024)
"""Height and width of random pixels for a segmenter that takes any size."""
REQUESTS_BYTES = 2**26
"""Memory of the prepared requests, in bytes."""


@dataclass(frozen=True)
class Samples:
    """A numbered set of images."""

    name: str
    """Name of the data set."""
    count: int
    """Number of images."""
    pixels: Callable[[int], NDArray[np.uint8]]
    """Prepares an image by its index, uint8 (H, W, 3)."""
    labels: NDArray[np.int64] | None = None
    """Class of each image in the model's order, if it is known."""


def read_samples(card: ModelCard, sources: Sequence[str]) -> Samples:
    """The images of some sources; without sources random pixels, since throughput does not depend on the content.

    Raises:
        InputError: a source can't be used.
    """
    if not sources:
        return _random(card)
    spec = card.input
    if isinstance(spec, SegmentationInput):
        masked = read_segmentation_dataset(sources, card.label_set)

        def pixels(index: int) -> NDArray[np.uint8]:
            return load_segmentation(masked.paths[index], spec).pixels

        return Samples(masked.name, len(masked), pixels)
    images = read_classification_dataset(sources)
    return Samples(images.name, len(images), lambda index: load(images.paths[index], spec))


def read_labelled_samples(card: ModelCard, sources: Sequence[str]) -> Samples:
    """A classifier's images with their classes.

    Raises:
        InputError: a source can't be used, or has classes that the model does not know.
        UsageError: the model is a segmenter.
    """
    spec = card.input
    if isinstance(spec, SegmentationInput):
        raise UsageError(f"model {card.name} is a segmenter", "measure its mIoU with `csg evaluate`")
    images = read_classification_dataset(sources, card.classes)
    for note in images.notes:
        log(f"{images.name}: {note}")
    return Samples(images.name, len(images), lambda index: load(images.paths[index], spec), images.labels)


def prepare_requests(served: ServedModel, samples: Samples, batch: int) -> list[bytes]:
    """Serialised requests of `batch` images each: all samples, but at most REQUESTS_BYTES, and at least one request.

    Raises:
        InputError: an image can't be read.
        UsageError: the images of a batch have different sizes.
    """
    requests: list[bytes] = []
    while len(requests) * batch < max(batch, samples.count):
        indices = range(len(requests) * batch, (len(requests) + 1) * batch)
        images = stack_images([samples.pixels(index % samples.count) for index in indices])
        requests.append(serialize_request(served, images))
        if len(requests[0]) * (len(requests) + 1) > REQUESTS_BYTES:
            break
    return requests


def stack_images(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """One batch, uint8 (N, H, W, 3).

    Raises:
        UsageError: the images have different sizes.
    """
    if len({image.shape for image in images}) > 1:
        raise UsageError("images of different sizes can't be batched", "leave --batch at 1")
    return np.stack(images)


def _random(card: ModelCard) -> Samples:
    height, width = card.input.height or FREE_SIZE[0], card.input.width or FREE_SIZE[1]

    def pixels(index: int) -> NDArray[np.uint8]:
        return np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)

    return Samples(f"random pixels, {height} x {width}", RANDOM_SAMPLES, pixels)
