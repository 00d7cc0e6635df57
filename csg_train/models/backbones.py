"""Encoders with named stages, cut from torchvision's classification models.

Every encoder takes images as they come from a file, uint8 (B, H, W, 3), and normalises them itself: training,
validation and the exported graph share this one place. It returns the map of each stage, (B, C, H/s, W/s)
with strides s = 4, 8, 16, 32 for layer1 ... layer4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from csg.errors import UsageError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Backbone:
    """A row of the table: how to build the model, where its ImageNet weights are, how to cut it."""

    build: Callable[[], nn.Module]
    weights: torchvision.models.WeightsEnum
    cut: Callable[[Any], dict[str, nn.Module]]
    channels: dict[str, int]


def _cut_resnet(model: Any) -> dict[str, nn.Module]:
    stem = [model.conv1, model.bn1, model.relu, model.maxpool]
    layers = {name: getattr(model, name) for name in ("layer2", "layer3", "layer4")}
    return {"layer1": nn.Sequential(*stem, *model.layer1), **layers}


def _cut_mobilenet_v2(model: Any) -> dict[str, nn.Module]:
    """Stages by stride. layer1-3 end in a linear bottleneck, without ReLU; layer4 ends in ReLU6."""
    cuts = {"layer1": (0, 4), "layer2": (4, 7), "layer3": (7, 14), "layer4": (14, 19)}
    return {name: model.features[start:end] for name, (start, end) in cuts.items()}


def _resnet(depth: int) -> Backbone:
    widths = (64, 128, 256, 512) if depth < 50 else (256, 512, 1024, 2048)
    return Backbone(
        build=getattr(torchvision.models, f"resnet{depth}"),
        weights=torchvision.models.get_model_weights(f"resnet{depth}").IMAGENET1K_V1,
        cut=_cut_resnet,
        channels={f"layer{number}": width for number, width in enumerate(widths, 1)},
    )


BACKBONES: dict[str, Backbone] = {
    "mobilenet_v2": Backbone(
        build=torchvision.models.mobilenet_v2,
        weights=torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1,
        cut=_cut_mobilenet_v2,
        channels={"layer1": 24, "layer2": 32, "layer3": 96, "layer4": 1280},
    ),
    **{f"resnet{depth}": _resnet(depth) for depth in (18, 34, 50, 101)},
}


def backbone(name: str) -> Backbone:
    """A row of the table.

    Raises:
        UsageError: there is no such backbone.
    """
    if name not in BACKBONES:
        raise UsageError(f"there is no backbone {name!r}", f"take one of {', '.join(BACKBONES)}")
    return BACKBONES[name]


class Normalise(nn.Module):
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W) in channels_last layout: (x / 255 - mean) / std."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, 255 * torch.tensor(values).reshape(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images.permute(0, 3, 1, 2).float() - self.mean) / self.std


class StridedDepthwise(nn.Conv2d):
    """A strided depthwise convolution that stays float32 under a CPU's autocast.

    Its bf16 backward in oneDNN takes some 20 times as long as the float32 one (benchmarks/train_step.py).
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())
        return super().forward(x)


def _keep_strided_depthwise_float32(module: nn.Module) -> None:
    for child in module.modules():
        if isinstance(child, nn.Conv2d) and child.groups == child.in_channels > 1 and child.stride != (1, 1):
            child.__class__ = StridedDepthwise  # the same layer, another forward


class Encoder(nn.Module):
    """The stages of a backbone, one after the other.

    Args:
        freeze_batch_norm: keep batch norm in eval mode during training, as the published recipe does
            (method.md section 2): its ImageNet statistics are used and not updated, its affine parameters train.
    """

    def __init__(self, name: str, weights: dict[str, Tensor] | None, freeze_batch_norm: bool):
        super().__init__()
        row = backbone(name)
        model = row.build()
        if weights is not None:
            model.load_state_dict(weights)
        _keep_strided_depthwise_float32(model)
        self.normalise = Normalise()
        self.stages = nn.ModuleDict(row.cut(model)).to(memory_format=torch.channels_last)
        self.channels = dict(row.channels)
        self.freeze_batch_norm = freeze_batch_norm

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = self.normalise(images)
        maps = {}
        for name, stage in self.stages.items():
            maps[name] = x = stage(x)
        return maps

    def train(self, mode: bool = True) -> Encoder:
        super().train(mode)
        if self.freeze_batch_norm:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self
