"""How many loader processes fit into shared memory, through which they hand over their batches.

A container has 64 MiB of /dev/shm unless it is started with more. A loader process that finds it full is killed.
"""

from __future__ import annotations

import os
from pathlib import Path

from csg.console import log

SHM = Path("/dev/shm")
PREFETCH = 4
"""Batches that each loader process prepares ahead."""
IN_USE = 2
"""Batches that the trainer holds: the current one and the next."""


def default_workers() -> int:
    """One loader process for every two cores, at most eight."""
    return min(8, len(os.sched_getaffinity(0)) // 2 if hasattr(os, "sched_getaffinity") else 1)


def fitting_workers(wanted: int, batch_bytes: int) -> int:
    """The wanted number of loader processes, or as many as shared memory has room for, which is said.

    Args:
        wanted: loader processes of this process.
        batch_bytes: size of this process's share of a batch.
    """
    free = _free_bytes()
    if free is None:
        return wanted
    batch = batch_bytes * int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    room = (free * 9 // 10 // max(1, batch) - IN_USE) // PREFETCH
    fitting = max(0, min(wanted, room))
    if fitting < wanted:
        log(
            f"{SHM} has {free / 2**20:.0f} MiB free, too little for {wanted} loader processes: {fitting} used; "
            "give the container more with --shm-size=2g, or set data.workers"
        )
    return fitting


def _free_bytes() -> int | None:
    """Free bytes of shared memory; None on a system without /dev/shm."""
    try:
        status = os.statvfs(SHM)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize
