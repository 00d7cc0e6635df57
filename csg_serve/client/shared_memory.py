"""Tensors through system shared memory, where client and server are on one machine.

Python's resource tracker, a process of its own, unlinks a region also after its client was killed. A server that can't
open one (another user's, a container's) refuses to register it, and tensors travel inline.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path("/dev/shm")
PREFIX = "csg-client-"
SMALLEST = 2**16


class Region:
    """A block of shared memory under a name that can't be guessed; its pages are there, not only promised.

    Raises:
        OSError: there is no room, or no shared memory.
    """

    def __init__(self, size: int):
        self.name, self.size = f"{PREFIX}{os.getpid()}-{secrets.token_hex(16)}", size
        self._memory = SharedMemory(self.name, create=True, size=size)
        try:
            file = os.open(FOLDER / self.name, os.O_RDWR)
            try:
                os.posix_fallocate(file, 0, size)  # a full /dev/shm would end the process at the first write
            finally:
                os.close(file)
        except OSError:
            self.unlink()
            raise

    def write(self, tensor: NDArray[Any]) -> None:
        """Put a tensor at the front."""
        np.ndarray(tensor.shape, tensor.dtype, self._memory.buf)[...] = tensor

    def read(self, shape: tuple[int, ...], dtype: Any, offset: int) -> NDArray[Any]:
        """A copy of the tensor at `offset`."""
        return np.ndarray(shape, dtype, self._memory.buf, offset).copy()

    def unlink(self) -> None:
        """Remove it; a server that has it mapped keeps its pages until it unregisters it."""
        self._memory.close()
        with suppress(FileNotFoundError):  # someone else did
            self._memory.unlink()
