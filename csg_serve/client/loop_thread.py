"""An event loop in a thread of its own: synchronous code waits for coroutines, also where a loop is running already."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from csg.errors import UsageError

T = TypeVar("T")


class LoopThread:
    """A running event loop; any thread but its own may wait for it."""

    def __init__(self) -> None:
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main(started)), name="csg", daemon=True)
        self._thread.start()
        self._loop = started.result()

    async def _main(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        started.set_result(asyncio.get_running_loop())
        await self._stopping.wait()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine, and return its result. Ctrl-C cancels it, waits until it has ended, and is raised.

        Raises:
            UsageError: the thread has ended, or ends before the coroutine.
        """
        done: Future[asyncio.Task[T]] = Future()
        tasks: list[asyncio.Task[T]] = []

        def start() -> None:
            tasks.append(self._loop.create_task(coroutine))
            tasks[0].add_done_callback(done.set_result)

        try:
            self._loop.call_soon_threadsafe(start)
        except RuntimeError:  # the loop is closed
            coroutine.close()
            raise _closed() from None
        try:
            done.result()
        except BaseException:
            self._loop.call_soon_threadsafe(lambda: tasks[0].cancel())
            done.result()
            raise
        if tasks[0].cancelled():
            raise _closed()
        return tasks[0].result()

    def finish(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that cleans up; the thread itself, where the garbage collector may call this, only starts it.

        If the thread has ended, nothing is left to clean up.
        """
        if threading.current_thread() is self._thread:
            self._last = self._loop.create_task(coroutine)
        else:
            with suppress(UsageError):
                self.run(coroutine)

    def stop(self, last: Coroutine[Any, Any, None] | None = None) -> None:
        """Run a last coroutine, if there is one, and end the thread."""

        async def end() -> None:
            try:
                if last:
                    await last
            finally:
                self._stopping.set()

        self.finish(end())
        if threading.current_thread() is not self._thread:
            self._thread.join()


def run_apart(coroutine: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, but also where an event loop is running, as in a notebook."""
    thread = LoopThread()
    try:
        return thread.run(coroutine)
    finally:
        thread.stop()


def _closed() -> UsageError:
    return UsageError("this client is closed", "make another one")
