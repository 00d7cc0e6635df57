"""A model that synchronous programs ask, by an event loop in a thread of its own."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable
from contextlib import suppress
from typing import Any, Self, TypeVar, overload

from csg.card import ModelCard
from csg.errors import UsageError
from csg_serve.client.answers import Prediction
from csg_serve.client.inputs import Given, Pixels, Words
from csg_serve.client.kept_model import KeptModel
from csg_serve.client.loop_thread import LoopThread

T = TypeVar("T")


class _Running:
    """A kept model, and the thread of its event loop."""

    def __init__(self, make: Callable[[], KeptModel]) -> None:
        self.pid, self.thread, self.kept = os.getpid(), LoopThread(), make()
        self._iterations = set[AsyncGenerator[Prediction, None]]()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.thread.run(coroutine)

    def iterate(self, images: Given, tile: int | None) -> Generator[Prediction, None, None]:
        answers = self.kept.predict_iter(images, tile)

        async def following() -> Prediction | None:
            return await anext(answers, None)

        self._iterations.add(answers)
        try:
            while answer := self.thread.run(following()):
                yield answer
        finally:
            self.thread.finish(self._end(answers))

    async def _end(self, answers: AsyncGenerator[Prediction, None]) -> None:
        self._iterations.discard(answers)
        with suppress(RuntimeError):  # another thread waits for its next answer
            await answers.aclose()

    async def _end_all(self) -> None:
        for answers in tuple(self._iterations):
            await self._end(answers)
        await self.kept.close()

    def close(self) -> None:
        if self.pid == os.getpid():  # the thread does not exist in a fork
            self.thread.stop(self._end_all())


class SynchronousModel:
    """A model for synchronous programs. It is closed at the end of `with`, by `close`, or when the program ends.

    Args:
        make: makes the model that is kept open.
    """

    def __init__(self, make: Callable[[], KeptModel]):
        self._make, self._closed = make, False
        self._forget()

    def _forget(self) -> None:
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._started: _Running | None = None
        self._finalizer: weakref.finalize | None = None

    def card(self) -> ModelCard:
        """The model card: classes, input, parity and evaluation figures.

        Raises:
            UsageError, ServerError, InputError, VerificationError: as `predict`.
        """
        running = self._running()
        return running.run(running.kept.card())

    @overload
    def predict(self, images: Pixels, tile: int | None = None) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, images: Words, tile: int | None = None) -> Prediction | list[Prediction]: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, images: Iterable[Words | Pixels], tile: int | None = None) -> list[Prediction]: ...
    def predict(self, images: Given, tile: int | None = None) -> Prediction | list[Prediction]:
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

        Example:
            >>> client.predict("seven.png")
            ClassAnswer('seven.png': 7 99.3 %, 1 0.4 %, 9 0.1 %)
        """
        running = self._running()
        return running.run(running.kept.predict(images, tile))

    def predict_iter(self, images: Given, tile: int | None = None) -> Generator[Prediction, None, None]:
        """As `predict`, but yields each answer as soon as it and all before it are there, also for one image.

        The images are read no further than the requests in flight need. If the model is replaced meanwhile, the rest
        is predicted by the new one.

        Example:
            >>> for answer in client.predict_iter("photos/"):
            ...     print(answer.name, answer.label)
        """
        yield from self._running().iterate(images, tile)

    def _running(self) -> _Running:
        """The model and its thread; a fork has none of its parent's, and starts its own."""
        if self._pid != os.getpid():
            self._forget()
        with self._lock:
            if self._closed:
                raise UsageError("this client is closed", "make another one")
            if self._started is None:
                self._started = _Running(self._make)
                self._finalizer = weakref.finalize(self, self._started.close)
            return self._started

    def close(self) -> None:
        """Close the model, and end its thread."""
        with self._lock:
            self._closed = True
            if self._finalizer and self._pid == os.getpid():
                self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
