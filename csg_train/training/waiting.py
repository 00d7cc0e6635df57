"""How long a training waits for its batches, and what to change when that is long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from csg_train.data.shared_memory import default_workers
from csg_train.recipe import Recipe

WORTH_ADVICE = 0.2
"""From this share on, advice is given at the end of a training."""
OPEN_EVENTS = 100
"""So many measurements on a GPU are kept until they are read."""


class Waiting:
    """The time in which nothing is computed for want of a batch, without the wait for the first one.

    A CPU waits while the block runs. A GPU works on what it was given before: it waits from the end of that work until
    the batch is there.

    Args:
        device: that the training runs on.
    """

    def __init__(self, device: torch.device):
        self.on_gpu = device.type == "cuda"
        self.total = 0.0
        self.first = True
        self.events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def measured(self) -> Iterator[None]:
        """A block that waits for a batch."""
        if self.first:  # loader processes start
            self.first = False
            yield
        elif self.on_gpu:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            start.record()
            yield
            end.record()
            self.events.append((start, end))
            if len(self.events) == OPEN_EVENTS:
                self._read()
        else:
            started = time.monotonic()
            yield
            self.total += time.monotonic() - started

    @property
    def seconds(self) -> float:
        """All waiting so far."""
        self._read()
        return self.total

    def _read(self) -> None:
        for start, end in self.events:
            end.synchronize()
            self.total += start.elapsed_time(end) / 1000
        self.events.clear()


def advice(recipe: Recipe, share: float) -> str | None:
    """What to change when a training has waited long for its batches; None if it has not.

    Args:
        recipe: of the training.
        share: of its time, 0 to 1.
    """
    if share < WORTH_ADVICE:
        return None
    data = recipe.data
    workers = default_workers() if data.workers is None else data.workers
    side = data.resize or max(getattr(data, "crop", (0,)))
    changes = [
        f"use more loader processes than {workers} if cores are free (--set data.workers={max(2, 2 * workers)})",
        f"store the images smaller, for example with a shorter side of {side} pixels",
    ]
    if not data.jpeg_scaling:
        changes.append("decode large JPEG files at a smaller scale (--set data.jpeg_scaling=true)")
    changes.append("keep them on a local disk")
    return f"{share:.0%} of the time was spent waiting for data: {'; or '.join(changes)}"
