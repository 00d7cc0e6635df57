"""When memory of freed tensors goes back to the machine and the GPU."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable

import torch

MALLOC_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
"""What a user sets of glibc's allocator in the environment; then csg sets nothing."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of mallopt (man 3 mallopt)."""
LARGEST_BLOCK, LARGEST_REST = 32 * 2**20, 2**31 - 1
"""The largest values that they take, bytes: of a block not mapped by itself, of free memory kept at the end."""


def release_memory() -> None:
    """Give back what freed tensors have left behind.

    The C library keeps freed memory for later, several GB after a large training, and torch does so on the GPU: other
    processes can't use it. Only glibc has a call that gives it back.
    """
    gc.collect()
    if trim := _of_glibc("malloc_trim"):
        trim(0)
    torch.cuda.empty_cache()


def keep_freed_memory() -> None:
    """Keep what a freed tensor leaves for the next one, for a process that trains on a CPU.

    glibc gives large blocks back, so that every step asks the machine for the same pages again, zeroed, one page fault
    for each 4 kB. A step's tensors have the sizes of those of the step before. No effect with other C
    libraries, or where the environment has one of MALLOC_SETTINGS.
    """
    mallopt = _of_glibc("mallopt")
    if mallopt and not any(os.environ.get(name) for name in MALLOC_SETTINGS):
        mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK)
        mallopt(M_TRIM_THRESHOLD, LARGEST_REST)


def _of_glibc(name: str) -> Callable[..., int] | None:
    """A function of glibc's allocator; None with another C library."""
    return getattr(ctypes.CDLL(None), name, None)
