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
