"""Heads for segmentation: from the maps of an encoder, of any strides, to the logits of each position.

Dilations are stated for a map of stride 8 (docs/method.md section 7). At another stride s they are multiplied by 8 / s,
so that they reach as far in the image (DeepLabv3, Chen et al. 2017, section 4.1: rates are halved where the output
stride is doubled).
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from csg.card import STRIDE
from csg_train.models.fast_layers import dilated_conv2d

ASPP_RATES = (12, 24, 36)  # docs/method.md section 7, published code
DEEPLAB_V2_RATES = (6, 12, 18, 24)  # docs/method.md section 7, DeepLabv2
RATES_STRIDE = 8
"""The stride of the map that these rates are for."""
PYRAMID_CHANNELS = 128
"""Channels of the levels of the pyramid (Kirillov et al. 2019, section 3)."""
PYRAMID_STRIDE = 8
"""The coarsest level of the pyramid is upsampled to at most this stride."""


class DeepLabV2Head(nn.Module):
    """The sum of four parallel 3 x 3 convolutions to the classes, at dilations 6, 12, 18, 24."""

    def __init__(self, channels: int, classes: int, rates: tuple[int, ...] = DEEPLAB_V2_RATES):
        super().__init__()
        self.branches = nn.ModuleList(dilated_conv2d(channels, classes, rate) for rate in rates)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = functools.reduce(torch.add, (branch(x) for branch in self.branches))
        return logits


class PyramidHead(nn.Module):
    """All stages brought to one stride by steps of a 3 x 3 convolution and a doubling, summed, and classified.

    The head of Panoptic FPN (Kirillov et al. 2019, section 3 and figure 3) straight on the encoder's maps, with batch
    norms, which fold into the convolutions. On the maps of a plain ViT, all of one stride, it is the progressive
    upsampling of SETR (Zheng et al. 2021, section 3.2), from several depths.

    Args:
        channels: of the map of each stage.
        strides: of the map of each stage.
        classes: their number.

    Attributes:
        stride: of the logits: that of the finest stage, halved until it is at most PYRAMID_STRIDE.
    """

    def __init__(self, channels: dict[str, int], strides: dict[str, int], classes: int):
        super().__init__()
        self.stride = min(strides.values())
        while self.stride > PYRAMID_STRIDE and self.stride % 2 == 0:
            self.stride //= 2
        self.levels = nn.ModuleDict(
            {stage: _level(channels[stage], _doublings(strides[stage], self.stride)) for stage in channels}
        )
        self.finest = min(strides, key=lambda stage: strides[stage])
        self.uneven = len(set(strides.values())) > 1 and any(STRIDE % stride for stride in strides.values())
        self.classify = nn.Conv2d(PYRAMID_CHANNELS, classes, 1)

    def forward(self, maps: dict[str, Tensor]) -> Tensor:
        """Logits, (B, classes, h, w) at `stride`, of the maps of all stages.

        Where the stride of a stage does not divide the image, its map reaches farther at the right and the bottom than
        the finest one, and is cropped to it.
        """
        levels = {stage: level(maps[stage]) for stage, level in self.levels.items()}
        if self.uneven:
            height, width = levels[self.finest].shape[2:]
            levels = {stage: found[:, :, :height, :width] for stage, found in levels.items()}
        logits: Tensor = self.classify(functools.reduce(torch.add, levels.values()))
        return logits


def _doublings(stride: int, wanted: int) -> int:
    """How often a map of a stride has to be doubled in size to be of another."""
    return (stride // wanted).bit_length() - 1


def _level(channels: int, doublings: int) -> nn.Sequential:
    """A 3 x 3 convolution, batch norm and ReLU before each doubling, or one if there is none."""
    layers: list[nn.Module] = []
    for step in range(max(1, doublings)):
        layers.append(nn.Conv2d(PYRAMID_CHANNELS if step else channels, PYRAMID_CHANNELS, 3, padding=1, bias=False))
        layers += [nn.BatchNorm2d(PYRAMID_CHANNELS), nn.ReLU()]
        if doublings:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers)


def _rates(rates: tuple[int, ...], stride: int) -> tuple[int, ...]:
    """The dilations for a map of a stride."""
    return tuple(max(1, round(rate * RATES_STRIDE / stride)) for rate in rates)


def make_head(kind: str, channels: dict[str, int], strides: dict[str, int], classes: int) -> nn.Module:
    """The head of a segmenter.

    Args:
        kind: `linear`, a 1 x 1 convolution (Segmenter, Strudel et al. 2021, section 3.2); `deeplabv2`; `aspp`:
            torchvision's DeepLabv3 head, which the published code uses; or `pyramid`. All but `pyramid` take the map of
            layer4 alone.
        channels: of the map of each stage.
        strides: of the map of each stage.
        classes: their number.
    """
    width, stride = channels["layer4"], strides["layer4"]
    head: nn.Module
    if kind == "pyramid":
        head = PyramidHead(channels, strides, classes)
    elif kind == "linear":
        head = nn.Conv2d(width, classes, 1)
    elif kind == "deeplabv2":
        head = DeepLabV2Head(width, classes, _rates(DEEPLAB_V2_RATES, stride))
    else:
        head = DeepLabHead(width, classes, _rates(ASPP_RATES, stride))
    return head
