"""Batches of augmented images, loaded by separate processes, in an order that depends on (seed, epoch) alone.

Shape letters: V views, B batch, H W of the crop.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from csg.errors import InputError
from csg_train.distributed import rank, world_size

Item = tuple[Tensor, Tensor] | str
"""Views, uint8 (V, H, W, 3), and label of an image; or, if it cannot be read, the reason."""


@dataclass(frozen=True)
class LoadedBatch:
    """A batch as it comes from a loader process."""

    views: Tensor
    """uint8 (V, B, H, W, 3); empty if no image of the batch could be read."""
    labels: Tensor
    """int64 (B,), or uint8 (B, H, W) for masks; empty if no image of the batch could be read."""
    unreadable: list[str]
    """A line for each image that was skipped."""

    def pin_memory(self) -> LoadedBatch:
        """The same batch in pinned memory; called by the loader before a copy to a GPU."""
        return LoadedBatch(self.views.pin_memory(), self.labels.pin_memory(), self.unreadable)


class StepBatchSampler(Sampler[list[tuple[int, int]]]):
    """The batches of a range of steps, as lists of (epoch, index); every epoch is shuffled anew.

    Each of several processes takes its share of every batch; the shares of all processes in order are the batch.

    Args:
        images: number of images.
        batch: images in a batch of all processes.
        seed: of the order.
        steps: the steps to load.
    """

    def __init__(self, images: int, batch: int, seed: int, steps: range):
        self.images, self.batch, self.seed, self.steps = images, batch, seed, steps
        share = batch // world_size()
        self.share = slice(rank() * share, (rank() + 1) * share)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        shuffled_epoch, order = -1, np.arange(0)
        for step in self.steps:
            epoch, within = divmod(step, self.images // self.batch)
            if epoch != shuffled_epoch:
                shuffled_epoch, order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.images)
            batch = order[within * self.batch : (within + 1) * self.batch]
            yield [(epoch, int(index)) for index in batch[self.share]]


def seed_sample(seed: int, epoch: int, index: int) -> None:
    """Seed torch for one image, so that its augmentation does not depend on loader processes or interruptions."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch, index]).generate_state(1, np.uint64)[0]))


def batches(
    images: Dataset[Item],
    sampler: StepBatchSampler,
    unreadable: Literal["fail", "skip"],
    workers: int | None,
    pin_memory: bool,
) -> Iterator[LoadedBatch]:
    """Load the batches of a sampler.

    Args:
        images: items at (epoch, index).
        sampler: which items make up each batch.
        unreadable: what to do with an image that cannot be read.
        workers: loader processes; None: one for every two cores, at most eight.
        pin_memory: load into pinned memory, for a copy to a GPU.

    Raises:
        InputError: an image cannot be read and `unreadable` is "fail", or no image of a batch can be read.
    """
    if workers is None:
        workers = min(8, len(os.sched_getaffinity(0)) // 2 if hasattr(os, "sched_getaffinity") else 1)
    loader: DataLoader[LoadedBatch] = DataLoader(
        images,  # type: ignore[arg-type]  # items become a LoadedBatch in _collate
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_ignore_signals,
        pin_memory=pin_memory,
        prefetch_factor=4 if workers else None,
    )
    for batch in loader:  # errors are raised here: an exception of a loader process loses its type
        if batch.unreadable and unreadable == "fail":
            raise InputError(
                batch.unreadable[0], "repair or remove it, or leave such images out: --set data.on_unreadable=skip"
            )
        if not len(batch.labels):
            what = f"no image of a whole batch could be read, the first because {batch.unreadable[0]}"
            raise InputError(what, "check the data")
        yield batch


def _collate(items: Sequence[Item]) -> LoadedBatch:
    good = [item for item in items if not isinstance(item, str)]
    unreadable = [item for item in items if isinstance(item, str)]
    if not good:
        return LoadedBatch(torch.empty(0), torch.empty(0), unreadable)
    views, labels = zip(*good, strict=True)
    return LoadedBatch(torch.stack(views, dim=1), torch.stack(labels), unreadable)


def _ignore_signals(_: int) -> None:
    """Leave Ctrl-C and SIGTERM to the trainer, also if the whole process group receives them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
