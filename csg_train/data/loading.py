"""Batches of augmented images, loaded by separate processes, in an order that depends on (seed, epoch) alone.

Shape letters: V views, B batch, H W of the crop.
"""

from __future__ import annotations

import multiprocessing
import re
import signal
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.util import get_temp_dir
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from csg.errors import InputError, one_line
from csg_train.data.shared_memory import PREFETCH, default_workers, fitting_workers
from csg_train.distributed import rank, world_size

Item = tuple[Tensor, Tensor] | str
"""Views, uint8 (V, H, W, 3), and label of an image; or, if it cannot be read, the reason."""
IN_A_ROW = 100
"""So many unreadable images in a row end a training that skips them."""
POLL_S = 5
"""How often a trainer that waits for a batch looks whether a loader process has died."""
TIMEOUT_S = 600
"""A trainer that has waited so long for a batch gives up."""


@dataclass(frozen=True)
class LoadedBatch:
    """A batch as it comes from a loader process."""

    views: Tensor
    """uint8 (V, B, H, W, 3); empty if an image could not be read, nor replaced."""
    labels: Tensor
    """int64 (B,), or uint8 (B, H, W) for masks; empty if an image could not be read, nor replaced."""
    unreadable: list[str]
    """A line for each image that was replaced, or for the one that could not be."""

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
        whole: load all of each batch in this process.
    """

    def __init__(self, images: int, batch: int, seed: int, steps: range, whole: bool = False):
        self.images, self.batch, self.seed, self.steps = images, batch, seed, steps
        share = batch // world_size()
        self.share = slice(0, batch) if whole else slice(rank() * share, (rank() + 1) * share)

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


@contextmanager
def seeded_sample(seed: int, epoch: int, index: int) -> Iterator[None]:
    """A block with random numbers of its own for one image, whatever the loader processes and interruptions."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence([seed, epoch, index]).generate_state(1, np.uint64)[0]))
        yield


@dataclass(frozen=True)
class Replacing(Dataset[tuple[Tensor, Tensor, str | None] | str]):
    """Items at (epoch, index) in which an image that can't be read is replaced by the next one, so that every batch and
    every process keeps its size.

    An item is views, label, and the reason why its own image can't be read, or None; or that reason alone.
    """

    images: Dataset[Item]
    """The items."""
    count: int
    """Their number."""
    attempts: int
    """Images to try; 1: none is replaced."""

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, str | None] | str:
        epoch, index = key
        reason = None
        for offset in range(self.attempts):
            item = self.images[epoch, (index + offset) % self.count]
            if not isinstance(item, str):
                return (*item, reason)
            reason = reason or item
        return reason or ""

    def batch_bytes(self, batch: int) -> int:
        """Size of a batch, judged by the first image that can be read; 0 if there is none."""
        item = Replacing(self.images, self.count, min(self.count, IN_A_ROW))[0, 0]
        return 0 if isinstance(item, str) else batch * (item[0].nbytes + item[1].nbytes)


def batches(
    images: Dataset[Item],
    sampler: StepBatchSampler,
    unreadable: Literal["fail", "skip"],
    workers: int | None,
    pin_memory: bool,
) -> Generator[LoadedBatch]:
    """Load the batches of a sampler.

    Args:
        images: items at (epoch, index).
        sampler: which items make up each batch.
        unreadable: what to do with an image that cannot be read; `skip` replaces it by the next one.
        workers: loader processes; None: one for every two cores, at most eight. Fewer if shared memory is small.
        pin_memory: load into pinned memory, for a copy to a GPU.

    Raises:
        InputError: an image cannot be read and `unreadable` is "fail", none of many in a row can be read, or a loader
            process has died or gives no batch.
    """
    replacing = Replacing(images, sampler.images, min(sampler.images, IN_A_ROW) if unreadable == "skip" else 1)
    workers = default_workers() if workers is None else workers
    if workers:
        workers = fitting_workers(workers, replacing.batch_bytes(sampler.batch // world_size()))
    loader: DataLoader[LoadedBatch] = DataLoader(
        replacing,  # type: ignore[arg-type]  # items become a LoadedBatch in _collate
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_leave_signals,
        pin_memory=pin_memory,
        prefetch_factor=PREFETCH if workers else None,
        timeout=POLL_S if workers else 0,
    )
    with _processes(loader) as (iterator, processes):
        while (batch := _next(iterator, processes)) is not None:
            if not len(batch.labels):  # raised here: an exception of a loader process loses its type
                raise _unreadable(batch.unreadable[0], replacing.attempts)
            yield batch


def _unreadable(reason: str, attempts: int) -> InputError:
    if attempts == 1:
        hint = "repair it, or leave such images out: --set data.on_unreadable=skip"
        return InputError(reason, hint)
    return InputError(f"none of {attempts} images in a row can be read, the first because {reason}", "check the data")


@contextmanager
def _processes(loader: DataLoader[LoadedBatch]) -> Iterator[tuple[Iterator[LoadedBatch], list[BaseProcess]]]:
    """Start the processes of a loader, and kill them at the end: one that hangs would never end by itself.

    torch's handler, which raises an error anywhere in the trainer when a process dies, is removed: `_next` looks.
    """
    if loader.num_workers:
        get_temp_dir()  # they put their sockets there, and it goes when this process ends: one of their own would stay
    before, handler = set(multiprocessing.active_children()), signal.getsignal(signal.SIGCHLD)
    iterator = iter(loader)
    started = [process for process in multiprocessing.active_children() if process not in before]
    if started and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, handler)
    try:
        yield iterator, started
    finally:
        for process in started:
            process.kill()


def _next(iterator: Iterator[LoadedBatch], processes: Sequence[BaseProcess]) -> LoadedBatch | None:
    """The next batch; None after the last.

    Raises:
        InputError: a process has died, or none gave a batch in time.
    """
    started = time.monotonic()
    while True:
        try:
            return next(iterator, None)
        except (RuntimeError, OSError, EOFError) as error:
            late = time.monotonic() - started > TIMEOUT_S
            if "timed out" not in str(error) or late:
                raise _reason(error, processes) or error from None


def _reason(error: Exception, processes: Sequence[BaseProcess]) -> InputError | None:
    """Why the loader processes give no batch; None for an error in what they run."""
    for process in processes:
        process.join(1)  # one that is dying closes its connections first
    if codes := [process.exitcode for process in processes if process.exitcode]:
        return _failed(_DEATHS.get(-codes[0], f"a process ended with exit code {codes[0]}"))
    if re.search("shared memory|No space left", str(error)):
        return _failed(_DEATHS[signal.SIGBUS])
    if "timed out" in str(error):
        return _failed(f"no batch in {TIMEOUT_S} s")
    return _failed(error) if processes and isinstance(error, OSError | EOFError) else None


_DEATHS: dict[int, str] = {
    signal.SIGBUS: "shared memory (/dev/shm) is full",
    signal.SIGKILL: "a process was killed, as when memory is short",
}


def _failed(reason: object) -> InputError:
    return InputError(
        f"loading images failed: {one_line(reason)}",
        "set fewer loader processes (--set data.workers=0), or give a container more shared memory (--shm-size=2g)",
    )


def _collate(items: Sequence[tuple[Tensor, Tensor, str | None] | str]) -> LoadedBatch:
    for item in items:
        if isinstance(item, str):
            return LoadedBatch(torch.empty(0), torch.empty(0), [item])
    views, labels, reasons = zip(*items, strict=True)
    return LoadedBatch(_share(torch.stack(views, dim=1)), _share(torch.stack(labels)), [r for r in reasons if r])


def _share(tensor: Tensor) -> Tensor:
    """The tensor, in shared memory if this is a loader process: if that is full, the error reaches the trainer."""
    if get_worker_info():
        tensor.share_memory_()  # type: ignore[no-untyped-call]
    return tensor


def _leave_signals(_: int) -> None:
    """Leave signals to the trainer, also if the whole process group receives them; die without a word."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGBUS, signal.SIGSEGV, signal.SIGFPE):
        signal.signal(number, signal.SIG_DFL)
    torch.set_num_threads(1)
