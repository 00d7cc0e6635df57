"""IBN-Net (Pan et al. 2018; docs/method.md section 8): instance norm for appearance, batch norm for content.

Both variants start from the ImageNet network and keep its affine parameters and statistics, or from the weights that
are published with IBN-Net (`published_name`). They are published for ResNets; we apply the same rule to the inverted
residual blocks of MobileNetV2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck

Blocks = dict[str, nn.Sequential]
STEM = ("conv1", "bn1", "relu", "maxpool")
"""What layer1 of csg's ResNets starts with, before its blocks."""


class InstanceBatchNorm(nn.Module):
    """Instance norm on the first half of the channels, and the given batch norm on the others."""

    def __init__(self, norm: nn.BatchNorm2d):
        super().__init__()
        self.cut = norm.num_features // 2
        self.instance = instance_norm(norm, self.cut)
        self.batch = nn.BatchNorm2d(norm.num_features - self.cut, norm.eps, norm.momentum)
        self.batch.load_state_dict(
            {name: value[self.cut :] if value.ndim else value for name, value in norm.state_dict().items()}
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.instance(x[:, : self.cut]), self.batch(x[:, self.cut :])], 1)


def instance_norm(norm: nn.BatchNorm2d, channels: int) -> nn.InstanceNorm2d:
    """Instance norm with the affine parameters of the first `channels` of a batch norm."""
    instance = nn.InstanceNorm2d(channels, affine=True)
    instance.load_state_dict({"weight": norm.weight[:channels], "bias": norm.bias[:channels]})
    return instance


def ibn_a(stages: Blocks) -> None:
    """Variant a: instance norm for half the channels of the first norm of each block in layer1 to layer3; in place."""
    for name in ("layer1", "layer2", "layer3"):
        for block in stages[name].modules():
            if isinstance(block, BasicBlock | Bottleneck | InvertedResidual):
                path, norm = _first_norm(block)
                block.set_submodule(path, InstanceBatchNorm(norm))


def ibn_b(stages: Blocks) -> None:
    """Variant b: instance norm after conv1, and after the residual sum at the end of layer1 and layer2; in place."""
    path, norm = _first_norm(stages["layer1"])
    stages["layer1"].set_submodule(path, instance_norm(norm, norm.num_features))
    for name in ("layer1", "layer2"):
        last = stages[name][-1]
        stages[name].append(nn.InstanceNorm2d(_width(last), affine=True))
        if isinstance(last, BasicBlock | Bottleneck):
            _move_relus_into_norms(last)
            stages[name].append(nn.ReLU(inplace=True))


def _move_relus_into_norms(block: BasicBlock | Bottleneck) -> None:
    """The same block without its last ReLU, which the caller appends: the block ends with the sum."""
    for name in ("bn1", "bn2") if isinstance(block, Bottleneck) else ("bn1",):
        setattr(block, name, nn.Sequential(getattr(block, name), nn.ReLU(inplace=True)))
    block.relu = cast(nn.ReLU, nn.Identity())


def _first_norm(module: nn.Module) -> tuple[str, nn.BatchNorm2d]:
    return next((name, child) for name, child in module.named_modules() if isinstance(child, nn.BatchNorm2d))


def _width(block: nn.Module) -> int:
    return [child for child in block.modules() if isinstance(child, nn.BatchNorm2d)][-1].num_features


def published_variant(names: Iterable[str]) -> str | None:
    """The variant, `ibn_a` or `ibn_b`, that a state dict published with IBN-Net belongs to; None: it is another."""
    instance = [name for name in names if ".IN." in name]
    if not instance:
        return None
    return "ibn_a" if any(".bn1.IN." in name for name in instance) else "ibn_b"


def published_name(key: str) -> str:
    """The name that IBN-Net's published weights have for a parameter or buffer of a ResNet's stages.

    Args:
        key: its name in the stages that `ibn_a` or `ibn_b` has changed.

    Example:
        >>> published_name("layer1.4.bn1.instance.weight"), published_name("layer2.4.bias")
        ('layer1.0.bn1.IN.weight', 'layer2.3.IN.bias')
    """
    stage, place, *inside = key.split(".")
    block, name = int(place), ".".join(inside)
    if stage == "layer1":
        if block < len(STEM):
            return f"{STEM[block]}.{name}"
        block -= len(STEM)
    if len(inside) == 1:  # the instance norm after the last block, which is a part of that block in IBN-Net
        return f"{stage}.{block - 1}.IN.{name}"
    name = name.replace("bn1.instance.", "bn1.IN.").replace("bn1.batch.", "bn1.BN.")
    name = re.sub(r"^(bn[12])\.0\.", r"\1.", name)  # a norm with its ReLU
    return f"{stage}.{block}.{name}"
