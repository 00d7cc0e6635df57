"""What each run of a comparison gets of the machines of a cluster."""

from __future__ import annotations

from pydantic import Field

from csg.records import Record


class RunResources(Record):
    """What each run gets of the cluster."""

    cpus: float = Field(default=1, gt=0)
    """CPU cores, and so torch's threads."""
    gpus: float | None = Field(default=None, ge=0)
    """GPUs; None: one if the cluster has any."""
    memory: float | None = Field(default=None, gt=0)
    """Memory in GiB; None: not counted."""
