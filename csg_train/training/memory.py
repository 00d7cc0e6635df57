"""Memory of this process that is not needed any more goes back to the machine and the GPU."""

from __future__ import annotations

import ctypes
import gc

import torch


def release_memory() -> None:
    """Give back what freed tensors have left behind.

    The C library keeps freed memory for later, several GB after a large training, and torch does so on the GPU: other
    processes can't use it. Only glibc has a call that gives it back.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
    torch.cuda.empty_cache()
