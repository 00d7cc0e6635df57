"""Tensors in system shared memory, for a client and a server on one machine.

Python's resource tracker, a separate process, removes a region even if its client was killed. If both were, the next
client does: each region is locked by its process, which may be in a container with process numbers of its own.

A server that can't open a region (it runs as another user or in a container) refuses to register it; tensors are sent
inline then.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
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
        self._memory, self._locked = SharedMemory(self.name, create=True, size=size), -1
        try:
            self._locked = os.open(FOLDER / self.name, os.O_RDWR)
            fcntl.flock(self._locked, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.posix_fallocate(self._locked, 0, size)
        except OSError:
            self.unlink()
            raise

    def write(self, tensor: NDArray[Any]) -> None:
        """Copy a tensor to the start of the region."""
        np.ndarray(tensor.shape, tensor.dtype, self._memory.buf)[...] = tensor

    def blank(self, offset: int, size: int) -> None:
        """Fill a part with bytes that no answer consists of: NaN, or class 255."""
        np.ndarray(size, np.uint8, self._memory.buf, offset)[...] = 255

    def read(self, shape: tuple[int, ...], dtype: Any, offset: int) -> NDArray[Any]:
        """A copy of the tensor at an offset in bytes."""
        return np.ndarray(shape, dtype, self._memory.buf, offset).copy()

    def unlink(self) -> None:
        """Remove the region; a server that has it mapped keeps its pages until it unregisters it."""
        self._memory.close()
        with suppress(FileNotFoundError):  # removed by somebody else
            self._memory.unlink()
        if self._locked >= 0:
            os.close(self._locked)
            self._locked = -1


def remove_dead_regions() -> None:
    """Remove the regions of this user's clients that have ended: nobody holds their lock any more.

    A region without memory is passed over: its process may be about to lock it.
    """
    for path in FOLDER.glob(f"{PREFIX}*"):
        with suppress(OSError):  # in use, or removed meanwhile
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                found = os.fstat(file)
                if stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid() and found.st_blocks:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
            finally:
                os.close(file)
