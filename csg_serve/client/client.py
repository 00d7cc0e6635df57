"""Send images to a served model: from a program in a few lines, or as an asynchronous stream.

    from csg_serve import Client

    for answer in Client("localhost:8001").predict(["a.jpg", "b.jpg"]):
        print(answer)

Shape letters: H W height and width of an image, K classes.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from csg.card import ClassificationInput, ModelCard, SegmentationInput
from csg.errors import InputError, UsageError
from csg.images import ImageSource, load, load_segmentation
from csg.tiles import load_tiles
from csg_serve.client.connection import ServedModel, infer, open_model
from csg_serve.client.endpoints import Servers, as_servers
from csg_serve.client.pool import ReplacedError

REQUEST_IMAGES = 8
"""Images that a request to a classifier has at most."""
IN_FLIGHT = 4
"""Requests in flight for each server."""

T = TypeVar("T")
Predictions = tuple[list[NDArray[Any] | InputError], float]
"""Predictions of the images of one request, and the seconds that the request took."""


@dataclass(frozen=True)
class Answer:
    """The answer for one image."""

    index: int
    """Index of the image in the sequence that was sent."""
    prediction: NDArray[Any] | InputError
    """Logits float32 (K,) of a classifier, label map uint8 (H, W) of a segmenter, or why the image can't be read."""
    request_s: float
    """Seconds from sending the image's request to its answer; the requests of its tiles are added up."""


class Client:
    """A served model, for synchronous programs. Every call opens a connection.

    Args:
        server: address of the server, or of several servers of the same model: HOST:PORT (gRPC), grpcs://HOST:PORT,
            http://HOST:PORT or https://HOST/PATH.
        model: name of the model; None for the only csg model on the server.
        tls_ca: PEM file of the certificates to trust; None for the system's.
        tls_cert: PEM file of the client's certificate, for servers that require one.
        tls_key: PEM file of its key.
        secret: secret of the server's control API; predictions don't need it.

    Example:
        >>> client = Client("localhost:8001")
        >>> client.card().classes
        ('0', '1', '2', '3', '4', '5', '6', '7', '8', '9')
        >>> [probabilities.argmax() for probabilities in client.predict(["a.jpg", "b.jpg"])]
        [3, 7]
    """

    def __init__(
        self,
        server: str | Sequence[str],
        model: str | None = None,
        *,
        tls_ca: str | Path | None = None,
        tls_cert: str | Path | None = None,
        tls_key: str | Path | None = None,
        secret: str | None = None,
    ):
        ca, cert, key = (Path(file) if file else None for file in (tls_ca, tls_cert, tls_key))
        self._servers = Servers(as_servers(server).texts, tls_ca=ca, tls_cert=cert, tls_key=key, secret=secret)
        self._model = model

    def card(self) -> ModelCard:
        """The model card: classes, input, parity and evaluation figures.

        Raises:
            UsageError, ServerError, InputError: as `csg_serve.open_model`.
        """

        async def read() -> ModelCard:
            async with open_model(self._servers, self._model) as served:
                return served.card

        return asyncio.run(read())

    def predict(self, images: Sequence[str | ImageSource], tile: int | None = None) -> list[NDArray[Any]]:
        """Predict images. If the model is replaced meanwhile, all of them are predicted by the new one.

        Args:
            images: paths, the bytes of image files, or Pillow images.
            tile: side in pixels of overlapping tiles to send to a segmenter; None sends whole images.

        Returns:
            one array per image, in order: class probabilities float64 (K,) of a classifier; label map uint8 (H, W)
            of a segmenter, in the size of the image.

        Raises:
            InputError: an image can't be read.
            UsageError, ServerError: as `csg_serve.open_model` and `csg_serve.stream`.
        """
        sources = [Path(image) if isinstance(image, str) else image for image in images]
        while True:
            try:
                return asyncio.run(self._predict(sources, tile))
            except ReplacedError:
                continue

    async def _predict(self, sources: Sequence[ImageSource], tile: int | None) -> list[NDArray[Any]]:
        found: list[NDArray[Any]] = []
        async with open_model(self._servers, self._model) as served, aclosing(stream(served, sources, tile)) as answers:
            async for answer in answers:
                if isinstance(answer, InputError):
                    raise InputError(f"{answer.message} (image {len(found) + 1} of {len(sources)})", answer.hint)
                found.append(answer if served.card.task == "segmentation" else probabilities(answer))
        return found


def probabilities(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Softmax over logits (K,)."""
    shares = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(shares / shares.sum())


async def stream(
    served: ServedModel, images: Sequence[ImageSource], tile: int | None = None
) -> AsyncGenerator[NDArray[Any] | InputError, None]:
    """Predict images in order, in constant memory.

    Args:
        served: the model, from `csg_serve.open_model`.
        images: paths, the bytes of image files, or Pillow images.
        tile: side in pixels of overlapping tiles to send to a segmenter, a multiple of 8; None sends whole images.

    Yields:
        for each image: logits float32 (K,) of a classifier, the label map uint8 (H, W) of a segmenter, or an
        InputError if the image can't be read.

    Raises:
        UsageError: the model can't take such tiles.
        ServerError: no server answered for a minute, or one does not answer as the card says.

    Example:
        >>> async with open_model("localhost:8001") as served:
        ...     async for prediction in stream(served, paths):
        ...         print(prediction.argmax())
    """
    async with aclosing(iter_answers(served, images, tile)) as answers:
        async for answer in answers:
            yield answer.prediction


async def iter_answers(
    served: ServedModel, images: Sequence[ImageSource], tile: int | None = None, *, ordered: bool = True
) -> AsyncGenerator[Answer, None]:
    """As `stream`, with the index of each image and the time of its request.

    At most IN_FLIGHT requests per server are in flight. Inference changes nothing on the server, so a request without
    an answer is sent again; every image gets exactly one answer here.

    Args:
        served: the model, from `open_model`.
        images: paths, the bytes of image files, or Pillow images.
        tile: side in pixels of overlapping tiles to send to a segmenter, a multiple of 8; None sends whole images.
        ordered: whether to yield in the order of the images, or as the answers arrive.

    Raises:
        UsageError, ServerError: as `stream`.
    """
    check_tile(served.card, tile)
    segmenter = isinstance(served.card.input, SegmentationInput)
    step, request = (1, _segment) if segmenter else (min(REQUEST_IMAGES, served.max_batch), _classify)

    async def predict(start: int) -> list[Answer]:
        predictions, seconds = await request(served, images[start : start + step], tile)
        return [Answer(index, prediction, seconds) for index, prediction in enumerate(predictions, start)]

    pending: deque[asyncio.Task[list[Answer]]] = deque()
    try:
        for start in range(0, len(images), step):
            if len(pending) == IN_FLIGHT * len(served.pool.replicas):
                for answer in await _next(pending, ordered):
                    yield answer
            pending.append(asyncio.create_task(predict(start)))
        while pending:
            for answer in await _next(pending, ordered):
                yield answer
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


async def _next(pending: deque[asyncio.Task[list[Answer]]], ordered: bool) -> list[Answer]:
    """The answers of the oldest request, or of the first that is done."""
    if ordered:
        return await pending.popleft()
    done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    task = done.pop()
    pending.remove(task)
    return await task


def check_tile(card: ModelCard, tile: int | None) -> None:
    """Check that a model takes square tiles of a side.

    Raises:
        UsageError: it does not.
    """
    spec = card.input
    if tile is None:
        return
    if not isinstance(spec, SegmentationInput):
        raise UsageError(f"model {card.name} is not a segmenter", "leave out --tile")
    if tile % 8 or (spec.height is not None and (spec.height, spec.width) != (tile, tile)):
        takes = "multiples of 8" if spec.height is None else f"images of {spec.height} x {spec.width}"
        raise UsageError(f"model {card.name} takes {takes}", f"--tile {tile} does not fit")


async def _classify(served: ServedModel, images: Sequence[ImageSource], _: int | None) -> Predictions:
    """Logits of a few images, from one request."""
    spec = served.card.input
    assert isinstance(spec, ClassificationInput)
    prepared = await asyncio.to_thread(lambda: [_or_error(partial(load, image, spec)) for image in images])
    readable = [pixels for pixels in prepared if not isinstance(pixels, InputError)]
    logits: Iterator[NDArray[Any]] = iter(())
    started = time.perf_counter()
    if readable:
        logits = iter(await infer(served, np.stack(readable), (len(served.card.classes),)))
    seconds = time.perf_counter() - started
    return [pixels if isinstance(pixels, InputError) else next(logits) for pixels in prepared], seconds


async def _segment(served: ServedModel, images: Sequence[ImageSource], tile: int | None) -> Predictions:
    """The label map of one image, from one request, or from several with its tiles."""
    (source,), spec = images, served.card.input
    assert isinstance(spec, SegmentationInput)
    if tile is None:
        padded = await asyncio.to_thread(_or_error, partial(load_segmentation, source, spec))
        if isinstance(padded, InputError):
            return [padded], 0.0
        started = time.perf_counter()
        maps = await infer(served, padded.pixels[None], padded.pixels.shape[:2])
        seconds = time.perf_counter() - started
        return [await asyncio.to_thread(padded.restore, maps[0])], seconds
    tiles = await asyncio.to_thread(_or_error, partial(load_tiles, source, spec, tile))
    if isinstance(tiles, InputError):
        return [tiles], 0.0
    found: list[NDArray[Any]] = []
    step, started = served.max_batch, time.perf_counter()
    for first in range(0, len(tiles.tiles), step):
        found.extend(await infer(served, np.stack(tiles.tiles[first : first + step]), (tile, tile)))
    seconds = time.perf_counter() - started
    return [await asyncio.to_thread(tiles.restore, found)], seconds


def _or_error(read: Callable[[], T]) -> T | InputError:
    """The result of reading an image, or the error if it can't be read."""
    try:
        return read()
    except InputError as error:
        return error
