"""Images to answers, in order or as they arrive, in constant memory.

Shape letters: H, W pixels of an image; K classes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import aclosing
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csg.card import SegmentationInput
from csg.errors import InputError
from csg_serve.client.model import OpenModel
from csg_serve.client.named_image import AnyImage
from csg_serve.client.requests import PLAIN, Answer, Sending, check_sending, classify, segment

REQUEST_IMAGES = 8
"""Images that a request to a classifier has at most."""
Images = Iterable[AnyImage] | AsyncIterable[AnyImage]
"""Images one after the other: a list, or a stream such as `csg_serve.client.image_sources.named_images`."""


def probabilities(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Softmax over logits (K,)."""
    shares = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(shares / shares.sum())


async def stream(
    served: OpenModel, images: Images, tile: int | None = None
) -> AsyncGenerator[NDArray[Any] | InputError, None]:
    """Predict images in order, in constant memory.

    Args:
        served: the model, from `csg_serve.open_model` or `csg_serve.open_bundle`.
        images: paths, the bytes of image files, Pillow images, or images with a name; a stream is read no further than
            the requests in flight need.
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
    async with aclosing(iter_answers(served, images, Sending(tile))) as answers:
        async for answer in answers:
            yield answer.prediction


async def iter_answers(
    served: OpenModel, images: Images, sending: Sending = PLAIN, *, ordered: bool = True
) -> AsyncGenerator[Answer, None]:
    """As `stream`, with the index of each image, the time of its request, and predictions with mirror images.

    At most `served.in_flight` requests are on their way. Inference changes nothing on the server, so a request without
    an answer is sent again; every image gets exactly one answer here.

    Args:
        served: the model, from `open_model` or `open_bundle`.
        images: paths, the bytes of image files, Pillow images, or images with a name; a stream is read no further than
            the requests in flight need.
        sending: how they are sent.
        ordered: whether to yield in the order of the images, or as the answers arrive.

    Raises:
        UsageError: the model can't take such tiles, or does not return the logits that mirrored predictions need.
        ServerError: as `stream`.
    """
    check_sending(served.card, sending)
    segmenter = isinstance(served.card.input, SegmentationInput)
    step, request = (1, segment) if segmenter else (min(REQUEST_IMAGES, served.max_batch), classify)

    async def predict(start: int, batch: list[AnyImage]) -> list[Answer]:
        answers = await request(served, batch, sending)
        return [replace(answer, index=start + answer.index) for answer in answers]

    pending: deque[asyncio.Task[list[Answer]]] = deque()
    sent = 0
    try:
        async with aclosing(_batches(images, step)) as batches:
            async for batch in batches:
                if len(pending) == served.in_flight:
                    for answer in await _next(pending, ordered):
                        yield answer
                pending.append(asyncio.create_task(predict(sent, batch)))
                sent += len(batch)
        while pending:
            for answer in await _next(pending, ordered):
                yield answer
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


async def _batches(images: Images, size: int) -> AsyncGenerator[list[AnyImage], None]:
    """The images in lists of `size`, the last one shorter."""
    if isinstance(images, Iterable):
        one_by_one = iter(images)
        while batch := list(islice(one_by_one, size)):
            yield batch
        return
    batch = []
    async for image in images:
        batch.append(image)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


async def _next(pending: deque[asyncio.Task[list[Answer]]], ordered: bool) -> list[Answer]:
    """The answers of the oldest request, or of the first that is done."""
    if ordered:
        return await pending.popleft()
    done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    task = done.pop()
    pending.remove(task)
    return await task
