"""Images through a served model: streamed, asynchronously, or from Python in a few lines.

    from csg_serve.client.client import Client

    for answer in Client("localhost:8001").predict(["a.jpg", "b.jpg"]):
        print(answer)

Shape letters: H W of an image, K classes.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csg.card import ClassificationInput, ModelCard, SegmentationInput
from csg.errors import InputError, UsageError
from csg.images import ImageSource, decode, load, prepare_segmentation
from csg.tiles import prepare_tiles
from csg_serve.client.connection import ServedModel, infer, open_model
from csg_serve.client.endpoints import Servers, as_servers
from csg_serve.client.pool import ReplacedError

REQUEST_IMAGES = 8
IN_FLIGHT = 4

Answer = NDArray[Any] | InputError


@dataclass(frozen=True)
class Answered:
    """What the model says of one image.

    place: of the image among those asked for. request_s: how long the request took that it went with, tiles' requests
    together, from sending to answer.
    """

    place: int
    answer: Answer
    request_s: float


class Client:
    """A served model, for programs that are not asynchronous. It connects with each call.

    Args:
        server: address of its server, or several of servers of the same model: gRPC's HOST:PORT, grpcs://HOST:PORT,
            http://HOST:PORT, https://HOST:PORT.
        model: its name; None: the only csg model there.
        tls_ca: PEM file with the certificates to trust; the system's by default.
        tls_cert, tls_key: PEM files of the client's own certificate, for servers that ask for one.
        secret: of the server's control protocols, where they want one; answers need none.
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
        self._servers, self._model = Servers(as_servers(server).texts, ca, cert, key, secret), model

    def card(self) -> ModelCard:
        """The model's card: its classes, its input, its figures.

        Raises:
            UsageError, ServerError, InputError: as `csg_serve.client.connection.open_model`.
        """

        async def ask() -> ModelCard:
            async with open_model(self._servers, self._model) as served:
                return served.card

        return asyncio.run(ask())

    def predict(self, images: Sequence[str | ImageSource], tile: int | None = None) -> list[NDArray[Any]]:
        """What the model says of each image, in order: one model of all, the new one if it is replaced meanwhile.

        Args:
            images: files, their bytes, or Pillow images.
            tile: send a segmenter's images in overlapping tiles of this side.

        Returns:
            of a classifier the probabilities of its classes, float64 (K,); of a segmenter the label map, uint8 (H, W),
            in the image's own size.

        Raises:
            InputError: an image can't be read.
            UsageError, ServerError: as `csg_serve.client.connection.open_model` and `stream`.
        """

        sources = [Path(image) if isinstance(image, str) else image for image in images]

        async def ask() -> list[NDArray[Any]]:
            async with open_model(self._servers, self._model) as served:
                found: list[NDArray[Any]] = []
                async with aclosing(stream(served, sources, tile)) as answers:
                    async for answer in answers:
                        if isinstance(answer, InputError):
                            raise InputError(f"{answer.message} (number {len(found) + 1})", answer.hint)
                        found.append(answer if served.card.task == "segmentation" else probabilities(answer))
                return found

        while True:
            try:
                return asyncio.run(ask())
            except ReplacedError:
                continue  # deployed meanwhile: all images again, so that one model has answered all


def probabilities(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Softmax over the logits (K,)."""
    shares = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(shares / shares.sum())


async def stream(
    served: ServedModel, paths: Sequence[ImageSource], tile: int | None = None
) -> AsyncGenerator[Answer, None]:
    """What the model says of each image in order, or the error of one that can't be read; as `answered`."""
    async with aclosing(answered(served, paths, tile)) as found:
        async for one in found:
            yield one.answer


async def answered(
    served: ServedModel, paths: Sequence[ImageSource], tile: int | None = None, ordered: bool = True
) -> AsyncGenerator[Answered, None]:
    """What the model says of each image, or the error of one that can't be read.

    A classifier says float32 logits (K,), a segmenter the label map, uint8, in the image's own size. A few requests for
    each server are under way at a time, and nothing else is held: memory does not grow with the images. Requests are
    idempotent: one that got no answer is asked again, and each image has one answer here.

    Args:
        paths: files, their bytes, or Pillow images.
        tile: send a segmenter's images in overlapping tiles of this side; a multiple of 8.
        ordered: in the order of `paths`; else as the answers come, so that a slow one holds nothing up.

    Raises:
        UsageError: the model can't take such tiles.
        ServerError: the server went away, took too long, or does not answer as the card says.
    """
    check_tile(served.card, tile)
    scenes = isinstance(served.card.input, SegmentationInput)
    step, request = (1, _segment) if scenes else (min(REQUEST_IMAGES, served.max_batch), _classify)

    async def ask(start: int) -> list[Answered]:
        found, seconds = await request(served, paths[start : start + step], tile)
        return [Answered(place, answer, seconds) for place, answer in enumerate(found, start)]

    pending: deque[asyncio.Task[list[Answered]]] = deque()
    try:
        for start in range(0, len(paths), step):
            if len(pending) == IN_FLIGHT * len(served.pool.members):
                for one in await _next(pending, ordered):
                    yield one
            pending.append(asyncio.create_task(ask(start)))
        while pending:
            for one in await _next(pending, ordered):
                yield one
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


async def _next(pending: deque[asyncio.Task[list[Answered]]], ordered: bool) -> list[Answered]:
    """The answers to the oldest request under way, or to the first that has any."""
    if ordered:
        return await pending.popleft()
    done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    task = done.pop()
    pending.remove(task)
    return await task


def check_tile(card: ModelCard, tile: int | None) -> None:
    """Raise UsageError where a model can't take square tiles of this side."""
    spec = card.input
    if tile is None:
        return
    if not isinstance(spec, SegmentationInput):
        raise UsageError(f"model {card.name} is no segmenter", "leave --tile out")
    if tile % 8 or (spec.height is not None and (spec.height, spec.width) != (tile, tile)):
        wants = "multiples of 8" if spec.height is None else f"images of {spec.height} x {spec.width}"
        raise UsageError(f"model {card.name} takes {wants}", f"--tile {tile} does not fit")


async def _classify(served: ServedModel, paths: Sequence[ImageSource], _: int | None) -> tuple[list[Answer], float]:
    """Logits of a few images, from one request, and the seconds it took."""
    spec = served.card.input
    assert isinstance(spec, ClassificationInput)
    prepared = await asyncio.to_thread(lambda: [_or_error(load, path, spec) for path in paths])
    images = [image for image in prepared if not isinstance(image, InputError)]
    rows: Iterator[NDArray[Any]] = iter(())
    began = time.perf_counter()
    if images:
        rows = iter(await infer(served, np.stack(images), (len(served.card.classes),)))
    seconds = time.perf_counter() - began
    return [image if isinstance(image, InputError) else next(rows) for image in prepared], seconds


async def _segment(served: ServedModel, paths: Sequence[ImageSource], tile: int | None) -> tuple[list[Answer], float]:
    """The label map of one image, from one request, or from a few with its tiles, and the seconds they took."""
    (path,), spec = paths, served.card.input
    assert isinstance(spec, SegmentationInput)
    image = await asyncio.to_thread(_or_error, decode, path)
    if isinstance(image, InputError):
        return [image], 0.0
    if tile is None:
        scene = await asyncio.to_thread(prepare_segmentation, image, spec)
        began = time.perf_counter()
        maps = await infer(served, scene.pixels[None], scene.pixels.shape[:2])
        seconds = time.perf_counter() - began
        return [await asyncio.to_thread(scene.restore, maps[0])], seconds
    tiles = await asyncio.to_thread(prepare_tiles, image, spec, tile)
    found: list[NDArray[Any]] = []
    step, began = served.max_batch, time.perf_counter()
    for start in range(0, len(tiles.parts), step):
        found.extend(await infer(served, np.stack(tiles.parts[start : start + step]), (tile, tile)))
    seconds = time.perf_counter() - began
    return [await asyncio.to_thread(tiles.restore, found)], seconds


def _or_error(read: Any, source: ImageSource, *arguments: Any) -> Any:
    """What `read` makes of an image, or the error of one that can't be read."""
    try:
        return read(source, *arguments)
    except InputError as error:
        return error
