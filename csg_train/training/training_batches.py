"""This process's share of a run's batches, on the device that it trains on."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from csg.console import log
from csg_train.data.loading import LoadedBatch, StepBatchSampler, batches
from csg_train.distributed import world_size
from csg_train.methods.base import Batch, Method
from csg_train.recipe import Recipe
from csg_train.tasks import TASKS, Images

Value = TypeVar("Value")
STATISTICS_BATCHES = 100
"""Batches, of one pass over the images, that running statistics are measured on."""


class InOrder(StepBatchSampler):
    """All images once, in their order, in batches of one size; the last is filled up with the first images.

    Every process takes all of them.

    Args:
        images: number of images.
        batch: images in a batch of this process.
        seed: of the images, in the order of no step.
    """

    def __init__(self, images: int, batch: int, seed: int):
        super().__init__(images, batch * world_size(), seed, range(-(-images // batch)))
        self.own = batch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for number in self.steps:
            start = number * self.own
            yield [(0, index % self.images) for index in range(start, start + self.own)]


class TrainingBatches:
    """The batches of a run.

    Args:
        recipe: its settings.
        images: to train on.
        method: that they are for.
        device: where they are needed.
        batch: images in a batch, over all processes.

    Attributes:
        fixed: whether an image is the same in every pass, and what networks give for it may be kept.
        unreadable: images of this process that could not be read so far, counted each time.
    """

    def __init__(self, recipe: Recipe, images: Images, method: Method, *, device: torch.device, batch: int):
        self.recipe, self.images, self.method = recipe, images, method
        self.device, self.batch = device, batch
        augmented = method.augmented or recipe.augment.pasta
        self.fixed = recipe.task == "cls" and not augmented and recipe.model.keep_features
        self.unreadable = 0
        self.replaced: set[str] = set()

    def of(self, steps: range) -> Generator[Batch]:
        """The batches of these steps, in order.

        Raises:
            InputError: as `csg_train.data.loading.batches`.
        """
        return self.loaded(self.sampler(steps))

    def sampler(self, steps: range) -> StepBatchSampler:
        """Which images make up the batches of these steps."""
        return StepBatchSampler(len(self.images), self.batch, self.recipe.seed, steps)

    def loaded(self, sampler: StepBatchSampler) -> Generator[Batch]:
        """The batches of a sampler; raises as `of`."""
        recipe, method, data, on_gpu = self.recipe, self.method, self.recipe.data, self.device.type == "cuda"
        views = TASKS[recipe.task].views(self.images, recipe, method.views, augmented=method.augmented)
        loaded = batches(views, sampler, data.on_unreadable, workers=data.workers, pin_memory=on_gpu)
        with closing(loaded):
            ahead = recipe.speed.copy_ahead and on_gpu
            copied = self._copied_ahead(loaded) if ahead else ((one, self._copied(one)) for one in loaded)
            for (one, batch), keys in zip(copied, sampler, strict=False):
                self._note_unreadable(one.unreadable)
                yield replace(batch, indices=tuple(index for _, index in keys)) if self.fixed else batch

    def inputs(self) -> Generator[Tensor]:
        """First views of the first whole batches, all in this process: uint8 (B, H, W, 3), on the device.

        Raises:
            InputError: as `csg_train.data.loading.batches`.
        """
        recipe, method, data = self.recipe, self.method, self.recipe.data
        views = TASKS[recipe.task].views(self.images, recipe, 1, augmented=method.augmented)
        steps = range(min(len(self.images) // self.batch, STATISTICS_BATCHES))
        sampler = StepBatchSampler(len(self.images), self.batch, recipe.seed, steps, whole=True)
        loaded = batches(views, sampler, data.on_unreadable, workers=data.workers, pin_memory=False)
        with closing(loaded):
            yield from (one.views[0].to(self.device) for one in loaded)

    def _copied(self, loaded: LoadedBatch) -> Batch:
        views, labels = (tensor.to(self.device, non_blocking=True) for tensor in (loaded.views, loaded.labels))
        return Batch(views, labels)

    def _copied_ahead(self, loaded: Iterator[LoadedBatch]) -> Generator[tuple[LoadedBatch, Batch]]:
        """Batches whose copy began, on a stream of its own, before the batch before was handed over."""
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

        def copied() -> Iterator[tuple[LoadedBatch, Batch, torch.cuda.Event]]:
            for one in loaded:
                with torch.cuda.stream(stream):
                    batch = self._copied(one)
                yield one, batch, stream.record_event()

        for one, batch, done in one_ahead(copied()):
            current = torch.cuda.current_stream(self.device)
            current.wait_event(done)
            for tensor in (batch.views, batch.labels):
                tensor.record_stream(current)  # its memory is not given away before this stream is done with it
            yield one, batch

    def _note_unreadable(self, lines: list[str]) -> None:
        for line in dict.fromkeys(line for line in lines if line not in self.replaced):
            log(f"skipped, the next image takes its place: {line}")
        self.replaced.update(lines)
        self.unreadable += len(lines)


def one_ahead(items: Iterable[Value]) -> Iterator[Value]:
    """The items, the next of which is made before each is handed over.

    Example:
        >>> made = one_ahead(print(number) or number for number in range(3))
        >>> next(made)
        0
        1
        0
    """
    return (item for item, _ in itertools.pairwise(itertools.chain(items, (None,))) if item is not None)
