"""Requests for a few images: prepared, sent, and the answers brought back to the images.

Shape letters: N images, H W height and width of the model's input, K classes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from csg.card import ClassificationInput, ModelCard, Output, SegmentationInput
from csg.errors import InputError, UsageError
from csg.images import load, load_segmentation
from csg.mirrored import classes_of_both, mirror_images
from csg.tiles import load_tiles
from csg_serve.client.model import OpenModel
from csg_serve.client.named_image import AnyImage, named

T = TypeVar("T")


@dataclass(frozen=True)
class Sending:
    """How images are sent."""

    tile: int | None = None
    """Side in pixels of overlapping tiles to send to a segmenter; None sends whole images."""
    mirrored: bool = False
    """Also send the mirror image of each."""


PLAIN = Sending()
"""Whole images, without mirror images."""


@dataclass(frozen=True)
class Answer:
    """The answer for one image."""

    index: int
    """Index of the image in the sequence that was sent."""
    prediction: NDArray[Any] | InputError
    """Logits float32 (K,) of a classifier, label map uint8 (H, W) of a segmenter, or why the image can't be read."""
    request_s: float = 0.0
    """Seconds from sending the image's request to its answer; the requests of its tiles are added up, those of mirror
    images don't count."""
    mirrored: int | NDArray[Any] | None = None
    """If asked for, what image and mirror image give together: the index of a class, or a label map, uint8 (H, W)."""


def check_sending(card: ModelCard, sending: Sending) -> None:
    """Check that images can be sent to a model so.

    Raises:
        UsageError: it can't take such tiles, or does not return the logits that mirrored predictions need.
    """
    _check_tile(card, sending.tile)
    if sending.mirrored:
        _logits_output(card)


def _check_tile(card: ModelCard, tile: int | None) -> None:
    spec = card.input
    if tile is None:
        return
    if not isinstance(spec, SegmentationInput):
        raise UsageError(f"model {card.name} is not a segmenter", "leave out --tile")
    if tile % 8 or (spec.height is not None and (spec.height, spec.width) != (tile, tile)):
        takes = "multiples of 8" if spec.height is None else f"images of {spec.height} x {spec.width}"
        raise UsageError(f"model {card.name} takes {takes}", f"--tile {tile} does not fit")


def _logits_output(card: ModelCard) -> Output:
    """The logits, which predictions with mirror images are made from; raises as `check_sending` if there are none."""
    found = next((output for output in card.outputs if output.dtype == "FP32"), None)
    if found is None:
        raise UsageError(
            f"model {card.name} returns label maps only, and mirrored figures need its logits",
            "export it with --logits, or leave out --mirrored",
        )
    return found


async def classify(served: OpenModel, images: Sequence[AnyImage], sending: Sending) -> list[Answer]:
    """Predict a few images by a classifier, in one request, and in a second one for the mirror images."""
    spec, row = served.card.input, (len(served.card.classes),)
    assert isinstance(spec, ClassificationInput)
    prepared = await asyncio.to_thread(lambda: [_or_error(partial(_load_pixels, image, spec)) for image in images])
    answers = {index: Answer(index, one) for index, one in enumerate(prepared) if isinstance(one, InputError)}
    readable = {index: one for index, one in enumerate(prepared) if not isinstance(one, InputError)}
    if readable:
        pixels, started = np.stack(list(readable.values())), time.perf_counter()
        logits = await served.infer(pixels, row)
        seconds = time.perf_counter() - started
        both: Sequence[int | None] = [None] * len(logits)
        if sending.mirrored:
            both = classes_of_both(logits, await served.infer(mirror_images(pixels), row)).tolist()
        for index, one, of_both in zip(readable, logits, both, strict=True):
            answers[index] = Answer(index, one, seconds, of_both)
    return [answers[index] for index in range(len(images))]


def _load_pixels(image: AnyImage, spec: ClassificationInput) -> NDArray[np.uint8]:
    one = named(image)
    return load(one.read(), spec, one.name)


@dataclass(frozen=True)
class _Scene:
    """An image for a segmenter, whole or in tiles."""

    inputs: Sequence[NDArray[np.uint8]]
    """What is sent, uint8 (H, W, 3) each."""
    restore: Callable[[Sequence[NDArray[Any]]], NDArray[Any]]
    """From the label map of each to that of the image in its own size."""


async def segment(served: OpenModel, images: Sequence[AnyImage], sending: Sending) -> list[Answer]:
    """Predict one image by a segmenter, in one request, or in several with its tiles; mirror images in further ones."""
    (image,) = images
    scene = await asyncio.to_thread(_or_error, partial(_load_scene, served.card, image, sending.tile))
    if isinstance(scene, InputError):
        return [Answer(0, scene)]
    maps: list[NDArray[Any]] = []
    started = time.perf_counter()
    for pixels in _requests(served, scene):
        maps.extend(await served.infer(pixels, pixels.shape[1:3]))
    seconds = time.perf_counter() - started
    plain = await asyncio.to_thread(scene.restore, maps)
    if not sending.mirrored:
        return [Answer(0, plain, seconds)]
    maps = []
    for pixels in _requests(served, scene):
        maps.extend(await _maps_of_both(served, pixels))
    return [Answer(0, plain, seconds, await asyncio.to_thread(scene.restore, maps))]


def _load_scene(card: ModelCard, image: AnyImage, tile: int | None) -> _Scene:
    assert isinstance(card.input, SegmentationInput)
    one = named(image)
    if tile is None:
        padded = load_segmentation(one.read(), card.input, one.name)
        return _Scene([padded.pixels], lambda maps: padded.restore(maps[0]))
    tiles = load_tiles(one.read(), card.input, tile, one.name)
    return _Scene(tiles.tiles, tiles.restore)


def _requests(served: OpenModel, scene: _Scene) -> Iterator[NDArray[np.uint8]]:
    """What each request holds, uint8 (N, H, W, 3)."""
    step = served.max_batch
    return (np.stack(scene.inputs[first : first + step]) for first in range(0, len(scene.inputs), step))


async def _maps_of_both(served: OpenModel, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Label maps, uint8 (N, H, W), from the logits of images and mirror images."""
    output, row = _logits_output(served.card), (len(served.card.classes), *pixels.shape[1:3])
    logits = await served.infer(pixels, row, output)
    of_mirror_images = await served.infer(mirror_images(pixels), row, output)
    return (await asyncio.to_thread(classes_of_both, logits, of_mirror_images)).astype(np.uint8)


def _or_error(read: Callable[[], T]) -> T | InputError:
    """The result of reading an image, or the error if it can't be read."""
    try:
        return read()
    except InputError as error:
        return error
