"""How fast a training is since it was started or resumed."""

from __future__ import annotations

import time

import torch

from csg_train.distributed import mean_over_processes, world_size
from csg_train.training.waiting import Waiting


class Throughput:
    """Counts steps, images, seconds and waiting; measurements between the steps do not count.

    Args:
        device: that the training runs on.

    Attributes:
        steps: made.
        images: trained on, over all processes.
        seconds: of training.
        waiting: for batches, in this process.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.steps, self.images, self.seconds = 0, 0, 0.0
        self.waiting = Waiting(device)
        self.noted = (0, 0.0, 0.0)

    def start(self) -> None:
        """The first step begins."""
        self.started = time.monotonic()

    def made(self, images: int) -> None:
        """A step with so many images of this process was made."""
        self.steps += 1
        self.images += world_size() * images
        self.seconds = time.monotonic() - self.started

    def leave_out(self, seconds: float) -> None:
        """So many seconds went into something else."""
        self.started += seconds

    def recent(self, note: bool) -> tuple[float, float]:
        """Images per second, and the share of the time spent waiting, since the last time that was noted.

        Args:
            note: that this is such a time.
        """
        now = (self.images, self.seconds, self.waiting.seconds)
        images, seconds, waited = (new - old for new, old in zip(now, self.noted, strict=True))
        if note:
            self.noted = now
        return round(images / seconds, 1), waited / seconds

    @property
    def images_per_s(self) -> float:
        """Images per second of training; 0 without a step."""
        return round(self.images / self.seconds, 1) if self.steps else 0.0

    @property
    def seconds_per_step(self) -> float:
        """Mean duration of a step; 0 without one."""
        return round(self.seconds / self.steps, 4) if self.steps else 0.0

    def waiting_share(self) -> float | None:
        """Share of the time spent waiting for batches, the mean over all processes; None without a step."""
        if not self.steps:
            return None
        share = torch.tensor(self.waiting.seconds / self.seconds, device=self.device)
        return round(float(mean_over_processes(share)), 4)
