"""Numbers that are none: NaN and infinity never get into a result."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


def non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of the tensors that hold NaN or infinity.

    Args:
        tensors: such as a state dict: weights and buffers.
    """
    floating = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    if not floating:
        return []
    finite = torch.stack([tensor.isfinite().all() for tensor in floating.values()]).tolist()
    return [name for name, good in zip(floating, finite, strict=True) if not good]


def finite_or_none(value: float) -> float | None:
    """A figure as JSON has it: None for NaN and infinity."""
    return value if math.isfinite(value) else None
