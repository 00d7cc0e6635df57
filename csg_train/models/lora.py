"""Low-rank adaptation (Hu et al. 2021, "LoRA: Low-rank adaptation of large language models"): W + B A in place of W.

    A: (r, columns), uniform at first, as torch initialises a linear layer; B: (rows, r), zero at first

W and everything else in the encoder stay. The factor alpha / r of the paper is 1: alpha is r, as for RoBERTa base
(appendix D).
The weight of a convolution (O, I, h, w) is the matrix (O, I h w). Adapted are all linear layers, and the
convolutions of up to 3 x 3 that see all channels: neither depthwise ones, whose matrices are as small as their factors,
nor the stem and the patch embedding.

The change is a parametrization of the weight (torch.nn.utils.parametrize), not a layer beside it: a batch norm that is
folded into a convolution scales the change too (csg_train/models/fast_layers.py), and what is merged is what trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from csg_train.models.backbones import Encoder

WEIGHT = "weight"
LARGEST_KERNEL = 3
_ORIGINAL = f"parametrizations.{WEIGHT}.original"
_CHANGE = f"parametrizations.{WEIGHT}.0."


class LowRankChange(nn.Module):
    """The sum of a weight and the product of two low-rank matrices.

    Args:
        weight: of a layer, (rows, ...).
        rank: of the product; at most that of the weight as a matrix.
    """

    def __init__(self, weight: Tensor, rank: int):
        super().__init__()
        rows, columns = weight.flatten(1).shape
        rank = min(rank, rows, columns)
        self.down = nn.Parameter(weight.new_empty(rank, columns))
        self.up = nn.Parameter(weight.new_zeros(rows, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            change = (self.up @ self.down).view(weight.shape)
        return weight + change


def add_lora(encoder: Encoder, rank: int) -> None:
    """Let low-rank changes of an encoder's layers train, and nothing else of it; its batch norms stay in eval mode."""
    encoder.requires_grad_(False)
    encoder.freeze_batch_norm = True
    for layer in list(_adaptable(encoder)):
        parametrize.register_parametrization(layer, WEIGHT, LowRankChange(cast(Tensor, layer.weight), rank))


def merge_lora(module: nn.Module) -> None:
    """Add the changes to the weights for good, in place: the network has the layers that it had before `add_lora`."""
    for layer in list(_adapted(module)):
        parametrize.remove_parametrizations(layer, WEIGHT, leave_parametrized=True)


def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict that a network has after `merge_lora`; without low-rank changes it is its own."""
    state = module.state_dict()
    for name, layer in module.named_modules():
        if not parametrize.is_parametrized(layer, WEIGHT):
            continue
        prefix = f"{name}." if name else ""
        for key in [key for key in state if key.startswith(prefix + _CHANGE)]:
            del state[key]
        del state[prefix + _ORIGINAL]
        state[prefix + WEIGHT] = cast(Tensor, layer.weight).detach()
    return state


def changing_weights(module: nn.Module) -> dict[str, Tensor]:
    """The weights that training changes, by their names in `merged_state`, with gradients to what trains."""
    inside = ".parametrizations."
    found: dict[str, Tensor] = {
        name: parameter
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and inside not in f".{name}"
    }
    for name, layer in module.named_modules():
        if parametrize.is_parametrized(layer, WEIGHT):
            found[f"{name}.{WEIGHT}"] = cast(Tensor, layer.weight)
    return found


def weight_of(module: nn.Module, name: str) -> Tensor:
    """The weight of a name that `changing_weights` returned, whether it trains now or not."""
    owner, _, last = name.rpartition(".")
    return cast(Tensor, getattr(module.get_submodule(owner), last))


def _adapted(module: nn.Module) -> Iterator[nn.Module]:
    return (layer for layer in module.modules() if parametrize.is_parametrized(layer, WEIGHT))


def _adaptable(encoder: Encoder) -> Iterator[nn.Module]:
    for layer in encoder.modules():
        is_convolution = isinstance(layer, nn.Conv2d) and layer.groups == 1 and max(layer.kernel_size) <= LARGEST_KERNEL
        if isinstance(layer, nn.Linear) or is_convolution:
            yield layer
