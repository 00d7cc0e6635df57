"""Training images: decoded and resized once, then augmented into one or more independent views.

What is drawn for an image depends on (seed, epoch, index) alone: not on the number of loader processes, nor on
where a run was interrupted. Shape letters: V views, B batch, S side of the crop.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from csg.errors import InputError
from csg.images import decode
from csg.realset import LabelledImages
from csg_train.recipe import Augment, Data

MAGNITUDES = 11  # 0-10, so that magnitude 6 is "6 of 10" (method.md section 6)


@dataclass(frozen=True)
class LoadedBatch:
    """views: uint8 (V, B, S, S, 3); labels: int64 (B,); unreadable: a line for each image left out."""

    views: Tensor
    labels: Tensor
    unreadable: list[str]

    def pin_memory(self) -> LoadedBatch:
        """Called by the loader before a copy to a GPU."""
        return LoadedBatch(self.views.pin_memory(), self.labels.pin_memory(), self.unreadable)


class Views(Dataset[tuple[Tensor, int] | str]):
    """Views of the image at (epoch, index), uint8 (V, S, S, 3), and its label; a line of text if it can't be read.

    RandAugment's fourteen operations are those of method.md section 6, with torchvision's ranges. They are
    applied after the resize (the published order is the other way round): both views then share the costly part.
    """

    def __init__(self, images: LabelledImages, data: Data, augment: Augment, views: int, seed: int):
        self.images, self.data, self.views, self.seed = images, data, views, seed
        self.resize = v2.Resize(data.resize, antialias=True)
        self.augment = v2.Compose(
            [
                v2.RandAugment(augment.operations, augment.magnitude, num_magnitude_bins=MAGNITUDES),
                v2.RandomCrop(data.size),
            ]
        )

    def __getitem__(self, place: tuple[int, int]) -> tuple[Tensor, int] | str:
        epoch, index = place
        try:
            image = self.resize(decode(self.images.paths[index]))
        except InputError as error:
            if self.data.unreadable == "fail":
                raise
            return error.what
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence([self.seed, epoch, index]).generate_state(1, np.uint64)[0]))
            views = np.stack([self._view(image) for _ in range(self.views)])
        return torch.from_numpy(views), int(self.images.labels[index])

    def _view(self, image: Image.Image) -> np.ndarray:
        return np.asarray(self.augment(image), np.uint8)


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


def _collate(items: Sequence[tuple[Tensor, int] | str]) -> LoadedBatch:
    good = [item for item in items if not isinstance(item, str)]
    unreadable = [item for item in items if isinstance(item, str)]
    if not good:
        raise InputError(
            f"no image of a whole batch could be read, the first because {unreadable[0]}", "check the data"
        )
    views, labels = zip(*good, strict=True)
    return LoadedBatch(torch.stack(views, dim=1), torch.tensor(labels), unreadable)


def _quiet_worker(_: int) -> None:
    """Ctrl-C and SIGTERM are the trainer's to answer, also when they reach the whole process group."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)


def loader(views: Views, steps: Steps, workers: int | None, pin_memory: bool) -> DataLoader[LoadedBatch]:
    """Batches for `steps`. By default one loader process for every two cores, eight at most."""
    if workers is None:
        workers = min(8, len(os.sched_getaffinity(0)) // 2 if hasattr(os, "sched_getaffinity") else 1)
    return DataLoader(
        views,  # type: ignore[arg-type]  # items become a LoadedBatch in _collate
        batch_sampler=steps,
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_quiet_worker,
        pin_memory=pin_memory,
        prefetch_factor=4 if workers else None,
    )
