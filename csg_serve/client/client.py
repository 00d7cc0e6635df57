"""Send images to a served model from a program in a few lines.

    from csg_serve import Client

    for answer in Client("localhost:8001").predict(["a.jpg", "b.jpg"]):
        print(answer)

Shape letters: H, W pixels of an image; K classes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from csg.card import ModelCard
from csg.errors import InputError
from csg.images import ImageSource
from csg_serve.client.connection import open_model
from csg_serve.client.endpoints import Servers, as_servers
from csg_serve.client.pool import ReplacedError
from csg_serve.client.stream import probabilities, stream


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
