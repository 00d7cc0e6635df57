"""CPU cores of this machine."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def available_cores() -> int:
    """Return the number of cores this process may use: its affinity, or a container's CPU quota (cgroup v2) if less."""
    cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max": no quota
        own = Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].strip()
        quota, period = Path("/sys/fs/cgroup", own, "cpu.max").read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores
