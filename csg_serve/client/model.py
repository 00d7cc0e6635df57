"""A model that answers, whether a server has it (connection.py) or this process (bundle_model.py).

Shape letters: N images, H W height and width of the model's input.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from csg.bundle import Bundle
from csg.card import ModelCard, Output
from csg.errors import UsageError

if TYPE_CHECKING:
    from csg_serve.client.endpoints import Servers


class OpenModel(Protocol):
    """A model that answers."""

    @property
    def server(self) -> str:
        """Where it is, in words: the addresses of its servers, or the folder of its bundle."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def version(self) -> int:
        """Its version on the server; 0 of a bundle."""

    @property
    def card(self) -> ModelCard:
        """Its model card."""

    @property
    def max_batch(self) -> int:
        """Images that a request may have."""

    @property
    def in_flight(self) -> int:
        """Requests that are worth sending at the same time."""

    async def infer(
        self, images: NDArray[np.uint8], row: tuple[int, ...], output: Output | None = None
    ) -> NDArray[Any]:
        """Answer one request.

        Args:
            images: pixels, uint8 (N, H, W, 3), prepared as the card says.
            row: expected shape of the output for one image.
            output: which output; None: the first of the card.

        Returns:
            the output, (N, *row).

        Raises:
            ServerError: no server answers, or one does not answer as the card says.
            VerificationError: a bundle does not answer as the card says.
        """


@asynccontextmanager
async def open_source(source: Servers | Path | Bundle, model: str | None = None) -> AsyncIterator[OpenModel]:
    """Open a model where it is.

    Args:
        source: the servers that have it, or a bundle or its folder, which is opened in this process.
        model: name of the model on the servers; None for the only csg model there.

    Raises:
        UsageError: a bundle has a name given; as `csg_serve.open_bundle` and `csg_serve.open_model`.
        ServerError, InputError, VerificationError: as these.
    """
    if isinstance(source, Path | Bundle):
        from csg_serve.client.bundle_model import open_bundle

        if model is not None:
            raise UsageError(f"{source} is a bundle, which has one model", "leave out --model")
        async with open_bundle(source) as opened:
            yield opened
        return
    from csg_serve.client.connection import open_model

    async with open_model(source, model) as served:
        yield served


def title(model: OpenModel) -> str:
    """The model's name for a heading: with its version, if it has one."""
    return f"{model.name} version {model.version}" if model.version else model.name
