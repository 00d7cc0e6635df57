"""Tensors in system shared memory, for a client and a server on one machine.

Python's resource tracker, a separate process, removes a region even if its client was killed. A server that can't open
a region (it runs as another user or in a container) refuses to register it; tensors are sent inline then.
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
MIN_BYTES = 2**16


class Region:
    """A region of shared memory under a name that can't be guessed.

    Args:
        size: number of bytes. They are allocated at once, since a full /dev/shm would end the process at a later write.

    Raises:
        OSError: there is not enough memory, or no shared memory at all.
    """

    def __init__(self, size: int):
        self.name, self.size = f"{PREFIX}{os.getpid()}-{secrets.token_hex(16)}", size
        self._memory = SharedMemory(self.name, create=True, size=size)
        try:
            file = os.open(FOLDER / self.name, os.O_RDWR)
            try:
                os.posix_fallocate(file, 0, size)
            finally:
                os.close(file)
        except OSError:
            self.unlink()
            raise

    def write(self, tensor: NDArray[Any]) -> None:
        """Copy a tensor to the start of the region."""
        np.ndarray(tensor.shape, tensor.dtype, self._memory.buf)[...] = tensor

    def read(self, shape: tuple[int, ...], dtype: Any, offset: int) -> NDArray[Any]:
        """A copy of the tensor at an offset in bytes."""
        return np.ndarray(shape, dtype, self._memory.buf, offset).copy()

    def unlink(self) -> None:
        """Remove the region; a server that has it mapped keeps its pages until it unregisters it."""
        self._memory.close()
        with suppress(FileNotFoundError):  # removed by somebody else
            self._memory.unlink()
