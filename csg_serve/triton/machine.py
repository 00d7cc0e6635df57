"""What the machine has that a server started here computes on."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path


def available_cores() -> int:
    """Cores this process may use: those of its affinity, or a container's CPU quota (cgroup v2) where that is less."""
    cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max" for no quota
        own = Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].strip()
        quota, period = Path("/sys/fs/cgroup", own, "cpu.max").read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def has_gpu() -> bool:
    """Whether an NVIDIA GPU answers here; the Python backend's script, which stands alone, asks the same way."""
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    except OSError:
        return False
