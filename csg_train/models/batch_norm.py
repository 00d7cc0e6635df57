"""Batch norms of a network, and their running statistics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
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
    modes = [(child, child.training) for child in module.modules()]
    module.train()
    try:
        yield
    finally:
        for child, mode in modes:
            child.training = mode


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
