"""Limits while image files are decoded: bytes of all images of a process, and CPU time of each."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

DECODED_BYTES = 2**30
"""Bytes that the images which a process decodes at the same time may take."""
MAX_CPU_S = 20.0
"""Seconds of CPU time to decode one image. CPU time, since a busy machine must not change what can be read."""


class MemoryBudget:
    """Bytes that threads share: who needs more than is left waits, in the order of arrival.

    Args:
        size: the bytes.
    """

    def __init__(self, size: int):
        self.size = size
        self._reset()
        os.register_at_fork(after_in_child=self._reset)  # a child has none of the threads that hold some

    def _reset(self) -> None:
        self._left, self._head, self._changed = self.size, threading.Lock(), threading.Condition()

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Wait until some bytes are free, and hold them.

        Raises:
            ValueError: there are not as many.
        """
        if amount > self.size:
            raise ValueError(f"decoding it takes {amount >> 20} MiB, the maximum is {self.size >> 20}")
        with self._head, self._changed:
            self._changed.wait_for(lambda: self._left >= amount)
            self._left -= amount
        try:
            yield
        finally:
            with self._changed:
                self._left += amount
                self._changed.notify_all()


BUDGET = MemoryBudget(DECODED_BYTES)
"""The budget of this process."""


class TimedFile(io.BytesIO):
    """A file in memory that can be read until its thread has used MAX_CPU_S seconds of CPU time.

    A decoder can't be interrupted, but it reads block after block, and what one block can cost is bounded by the limits
    of `csg.image_headers`.
    """

    def __init__(self, content: bytes):
        super().__init__(content)
        self._end = time.thread_time() + MAX_CPU_S

    def read(self, size: int | None = -1, /) -> bytes:
        """As any file, or ValueError if the time is over."""
        if time.thread_time() > self._end:
            raise ValueError(f"decoding it takes more than {MAX_CPU_S:.0f} s of CPU time")
        return super().read(size)
