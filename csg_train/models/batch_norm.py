"""Batch norms of a network, and their running statistics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed import GroupMember
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(module: nn.Module) -> Iterator[_BatchNorm]:
    """All batch norms of a network."""
    return (child for child in module.modules() if isinstance(child, _BatchNorm))


@contextmanager
def frozen_running_stats(module: nn.Module) -> Iterator[None]:
    """Leave running statistics unchanged inside the block; batch norms in train mode still normalise by the batch."""
    norms = [norm for norm in batch_norms(module) if norm.training]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@contextmanager
def in_train_mode(module: nn.Module) -> Iterator[None]:
    """Put a network into train mode inside the block; afterwards every module of it has its mode again."""
    with modes_restored(module):
        module.train()
        yield


@contextmanager
def spare_running_stats(module: nn.Module) -> Iterator[None]:
    """Let batch norms in train mode update copies of their running statistics inside the block, which are dropped."""
    kept = [(norm, dict(norm.named_buffers(recurse=False))) for norm in batch_norms(module) if norm.training]
    for norm, buffers in kept:
        for name, value in buffers.items():
            setattr(norm, name, value.clone())
    try:
        yield
    finally:
        for norm, buffers in kept:
            for name, value in buffers.items():
                setattr(norm, name, value)


@contextmanager
def modes_restored(module: nn.Module) -> Iterator[None]:
    """Restore the mode of every part of a network after the block."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def training_norms(module: nn.Module) -> list[_BatchNorm]:
    """The batch norms that normalise by the batch when a network trains."""
    with in_train_mode(module):
        return [norm for norm in batch_norms(module) if norm.training]


@torch.no_grad()
def measure_running_stats(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Measure the running statistics of the batch norms that train anew, as after a change of the weights.

    They become the means over the batches (Izmailov et al. 2018, section 3.2). All else is in eval mode meanwhile:
    frozen norms keep their statistics, and there is no dropout, since the network predicts without it.

    Args:
        module: a network, on its device; its modes are restored.
        batches: its inputs; at least one.
    """
    norms = [norm for norm in training_norms(module) if norm.track_running_stats]
    if not norms:
        return
    before = [norm.momentum for norm in norms]
    with modes_restored(module), _in_one_process(norms):
        module.eval()
        for norm in norms:
            norm.train()
            norm.reset_running_stats()
            norm.momentum = None  # the mean of all batches
        for images in batches:
            module(images)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum


@contextmanager
def _in_one_process(norms: list[_BatchNorm]) -> Iterator[None]:
    """Let norms that are synchronised over several processes not wait for the others."""
    synchronised = [norm for norm in norms if isinstance(norm, nn.SyncBatchNorm)]
    groups = [norm.process_group for norm in synchronised]
    for norm in synchronised:
        norm.process_group = GroupMember.NON_GROUP_MEMBER
    try:
        yield
    finally:
        for norm, group in zip(synchronised, groups, strict=True):
            norm.process_group = group
