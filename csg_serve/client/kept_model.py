"""A model that is opened once and asked many times, and answers with objects."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Self, overload

from csg.card import ModelCard
from csg.errors import InputError, ServerError, UsageError
from csg_serve.client.answers import Prediction, answer_for
from csg_serve.client.inputs import Given, Pixels, Words, given_images
from csg_serve.client.model import OpenModel
from csg_serve.client.named_image import NamedImage
from csg_serve.client.pool import ReplacedError
from csg_serve.client.stream import stream


@dataclass(eq=False)
class _Opened:
    """An open model, and how many calls use it."""

    model: OpenModel
    stack: AsyncExitStack
    users: int = 0


class KeptModel:
    """A model that the first call opens, and that stays open. Any number of tasks of one event loop may use it.

    Args:
        opener: opens the model.

    Example:
        >>> async with KeptModel(lambda: open_bundle(Path("bundles/digits"))) as model:
        ...     print((await model.predict("seven.png")).label)
    """

    def __init__(self, opener: Callable[[], AbstractAsyncContextManager[OpenModel]]):
        self._opener = opener
        self._opened: _Opened | None = None
        self._opening = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def card(self) -> ModelCard:
        """The model card: classes, input, parity and evaluation figures.

        Raises:
            UsageError, ServerError, InputError, VerificationError: the model can't be opened.
        """
        async with self._open() as model:
            return model.card

    @overload
    async def predict(self, images: Pixels, tile: int | None = None) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    async def predict(self, images: Words, tile: int | None = None) -> Prediction | list[Prediction]: ...  # type: ignore[overload-overlap]
    @overload
    async def predict(self, images: Iterable[Words | Pixels], tile: int | None = None) -> list[Prediction]: ...
    async def predict(self, images: Given, tile: int | None = None) -> Prediction | list[Prediction]:
        """Predict one image, or several. If the model is replaced meanwhile, all are predicted by the new one.

        Args:
            images: a path, a web address, the bytes of a file, a Pillow image, or RGB, uint8 (H, W, 3): one image.
                A folder, a pattern such as photos/*.jpg, a video, or a list of any of these: several.
            tile: side in pixels of overlapping tiles to send to a segmenter, a multiple of 8; None sends whole images.

        Returns:
            for one image its answer, a `ClassAnswer` of a classifier or a `MaskAnswer` of a segmenter; for several a
            list of answers, in order.

        Raises:
            UsageError: something given is not an image; the model can't take such tiles; this is closed.
            InputError: an image can't be read, or there is none in a folder or for a pattern.
            ServerError, VerificationError: no server answers, or one does not answer as the card says; a bundle does
                not answer as it should.
        """
        source, several = given_images(images)
        async with aclosing(source):
            given = [image async for image in source]
        while True:
            try:
                async with aclosing(self._answers(deque(given), source, tile)) as answers:
                    found = [answer async for answer in answers]
            except ReplacedError:
                continue
            return found if several else found[0]

    async def predict_iter(self, images: Given, tile: int | None = None) -> AsyncGenerator[Prediction, None]:
        """As `predict`, but yields each answer as soon as it and all before it are there, also for one image.

        The images are read no further than the requests in flight need. If the model is replaced meanwhile, the rest
        is predicted by the new one.

        Example:
            >>> async for answer in client.predict_iter("photos/"):
            ...     print(answer.name, answer.label)
        """
        source, _ = given_images(images)
        unanswered = deque[NamedImage]()
        async with aclosing(source):
            while True:
                try:
                    async with aclosing(self._answers(unanswered, source, tile)) as answers:
                        async for answer in answers:
                            yield answer
                    return
                except ReplacedError:
                    continue

    async def _answers(
        self, unanswered: deque[NamedImage], source: AsyncIterable[NamedImage], tile: int | None
    ) -> AsyncGenerator[Prediction, None]:
        """The answers to images, in order; an image that can't be read raises.

        Args:
            unanswered: the first images; those of `source` join them until they are answered.
            source: the other images.
            tile: as for `predict`.
        """

        async def rest() -> AsyncGenerator[NamedImage, None]:
            for image in tuple(unanswered):
                yield image
            async for image in source:
                unanswered.append(image)
                yield image

        async with (
            self._open() as model,
            aclosing(rest()) as images,
            aclosing(stream(model, images, tile)) as predictions,
        ):
            async for prediction in predictions:
                if isinstance(prediction, InputError):
                    raise prediction
                yield answer_for(unanswered.popleft(), model.card, prediction)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[OpenModel]:
        """The open model. After an error of its server, the next call opens it again."""
        opened = await self._current()
        opened.users += 1
        try:
            yield opened.model
        except ServerError:
            if self._opened is opened:
                self._opened = None
            raise
        finally:
            opened.users -= 1
            if opened is not self._opened and not opened.users:
                await opened.stack.aclose()

    async def _current(self) -> _Opened:
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise UsageError("this client belongs to another event loop", "make one in each loop, or use Client")
        async with self._opening:
            if self._closed:
                raise UsageError("this client is closed", "make another one")
            if self._opened is None:
                async with AsyncExitStack() as stack:
                    model = await stack.enter_async_context(self._opener())
                    self._opened = _Opened(model, stack.pop_all())
            return self._opened

    async def close(self) -> None:
        """Close the model, after a call that is opening it."""
        self._closed = True
        async with self._opening:
            opened, self._opened = self._opened, None
            if opened and not opened.users:
                await opened.stack.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
