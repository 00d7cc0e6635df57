"""Batch norms that normalise by the images of all processes (torch.nn.SyncBatchNorm), which have no form for a CPU."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from csg_train.models.batch_norm import in_train_mode
from csg_train.models.fast_layers import FoldingConv2d


def synchronise_batch_norms(network: nn.Module) -> int:
    """Replace the batch norms of a network that train by synchronised ones; in place, with the same state dict.

    Returns:
        how many there are; frozen ones stay as they are.
    """
    with in_train_mode(network):
        training = {name: norm for name, norm in network.named_modules() if _trains(norm)}
    for name, norm in training.items():
        network.set_submodule(name, _synchronised(norm))
    for conv in network.modules():
        if isinstance(conv, FoldingConv2d) and any(norm in training.values() for norm in conv.norm):
            conv.leave_norm()  # the synchronised norm does its own work in eval mode too
    return len(training)


def _trains(norm: nn.Module) -> bool:
    return isinstance(norm, _BatchNorm) and norm.training


def _synchronised(norm: nn.Module) -> nn.Module:
    mode = norm.training
    if any(norm.children()):  # timm's norms have their activation inside
        from timm.layers import convert_sync_batchnorm

        made: nn.Module = convert_sync_batchnorm(norm)
    else:
        made = nn.SyncBatchNorm.convert_sync_batchnorm(norm)  # type: ignore[no-untyped-call]
    return made.train(mode)
