"""Gradient checkpointing of an encoder: of each block only the input is kept until the backward pass.

Source: Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost (arXiv 1604.06174), section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from csg_train.models.batch_norm import spare_running_stats

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The repeated parts of a network, such as the residual blocks of a ResNet or the layers of a ViT.

    A block is a module with children inside a container, and contains no block itself.
    """
    for child in network.children():
        inside = list(blocks(child))
        yield from inside
        if isinstance(network, CONTAINERS) and not (inside or isinstance(child, CONTAINERS)) and any(child.children()):
            yield child


def use_gradient_checkpointing(network: nn.Module) -> None:
    """Compute each block of a network again in the backward pass, while it trains; in place, with the same state dict.

    Random numbers and running statistics are those of the first computation.
    """
    for block in blocks(network):
        block.forward = _recomputed(block, block.forward)  # type: ignore[method-assign]


def _recomputed(block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), spare_running_stats(block)  # they were updated by the first computation

    def run(*inputs: Any, **named: Any) -> Any:
        if not (block.training and torch.is_grad_enabled()):
            return forward(*inputs, **named)
        return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **named)

    return run
