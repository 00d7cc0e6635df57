"""Batches of augmented images, in an order that depends on (seed, epoch) alone; loaded by processes of their own.

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

Item = tuple[Tensor, Tensor] | str  # views (V, H, W, 3) and label, or why they can't be had


@dataclass(frozen=True)
class LoadedBatch:
    """views: uint8 (V, B, H, W, 3); labels: int64 (B,), or uint8 (B, H, W) for masks; unreadable: a line for each
    image left out. Views and labels are empty where no image of the batch could be read.
    """

    views: Tensor
    labels: Tensor
    unreadable: list[str]

    def pin_memory(self) -> LoadedBatch:
        """Called by the loader before a copy to a GPU."""
        return LoadedBatch(self.views.pin_memory(), self.labels.pin_memory(), self.unreadable)


class Steps(Sampler[list[tuple[int, int]]]):
    """The batches of all steps from `start` to `total`, as lists of (epoch, index): a fresh shuffle every epoch.

    Of several processes each takes its piece of every batch; one after the other the pieces are the batch.
    """

    def __init__(
        self, images: int, batch: int, seed: int, start: int, total: int, process: int = 0, processes: int = 1
    ):
        self.images, self.batch, self.seed, self.start, self.total = images, batch, seed, start, total
        self.per_epoch = images // batch
        piece = batch // processes
        self.piece = slice(process * piece, (process + 1) * piece)

    def __len__(self) -> int:
        return self.total - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        shuffled_epoch, order = -1, np.arange(0)
        for step in range(self.start, self.total):
            epoch, within = divmod(step, self.per_epoch)
            if epoch != shuffled_epoch:
                shuffled_epoch, order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.images)
            batch = order[within * self.batch : (within + 1) * self.batch]
            yield [(epoch, int(index)) for index in batch[self.piece]]


def fix_randomness(seed: int, epoch: int, index: int) -> None:
    """Seed torch for one image: what is drawn depends on (seed, epoch, index), not on processes or interruptions."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch, index]).generate_state(1, np.uint64)[0]))


def load_batches(
    images: Dataset[Item], steps: Steps, unreadable: Literal["fail", "skip"], workers: int | None, pin_memory: bool
) -> Iterator[LoadedBatch]:
    """Batches for `steps`. By default one loader process for every two cores, eight at most.

    Raises:
        InputError: an image can't be read and `unreadable` is "fail", or none of a whole batch can.
    """
    if workers is None:
        workers = min(8, len(os.sched_getaffinity(0)) // 2 if hasattr(os, "sched_getaffinity") else 1)
    loader: DataLoader[LoadedBatch] = DataLoader(
        images,  # type: ignore[arg-type]  # items become a LoadedBatch in _collate
        batch_sampler=steps,
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_quiet_worker,
        pin_memory=pin_memory,
        prefetch_factor=4 if workers else None,
    )
    for batch in loader:  # errors are raised here: an exception does not come whole out of a loader process
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


def _quiet_worker(_: int) -> None:
    """Ctrl-C and SIGTERM are the trainer's to answer, also when they reach the whole process group."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
