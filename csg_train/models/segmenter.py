"""The student for segmentation: an encoder at output stride 8, a head, and bilinear upsampling to the image's size."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from csg.card import STRIDE
from csg_train.models.backbones import Encoder
from csg_train.models.fast_layers import dilated_conv2d

ASPP_RATES = (12, 24, 36)  # docs/method.md section 7, published code
DEEPLAB_V2_RATES = (6, 12, 18, 24)  # docs/method.md section 7, DeepLabv2


class DeepLabV2Head(nn.Module):
    """The sum of four parallel 3 x 3 convolutions to the classes, at dilations 6, 12, 18, 24."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.branches = nn.ModuleList(dilated_conv2d(channels, classes, rate) for rate in DEEPLAB_V2_RATES)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = functools.reduce(torch.add, (branch(x) for branch in self.branches))
        return logits


def make_head(kind: str, channels: int, classes: int) -> nn.Module:
    """`deeplabv2`, or `aspp`: torchvision's DeepLabv3 head, which the published code uses."""
    if kind == "deeplabv2":
        return DeepLabV2Head(channels, classes)
    head: nn.Module = DeepLabHead(channels, classes, ASPP_RATES)
    return head


class Segmenter(nn.Module):
    """Encoder, head on layer4, logits upsampled eight times (docs/method.md section 7).

    The batch norms of the head are in train mode while it trains.

    Args:
        encoder: dilated.
        classes: their number.
        head: `aspp` or `deeplabv2`.
        align_corners: whether the corner pixels of the map and of the image coincide in the upsampling.
    """

    def __init__(self, encoder: Encoder, classes: int, head: str, align_corners: bool):
        super().__init__()
        self.encoder = encoder
        self.head = make_head(head, encoder.channels["layer4"], classes)
        self.align_corners = align_corners

    def embed(self, maps: dict[str, Tensor]) -> Tensor:
        """Embeddings of whole images, (B, C): the pooled layer4 of the encoder's maps."""
        return maps["layer4"].mean((2, 3))

    def classify(self, maps: dict[str, Tensor]) -> Tensor:
        """Logits, float32 (B, classes, H, W), of the encoder's maps (B, C, H / 8, W / 8)."""
        logits = self.head(maps["layer4"]).float()
        return F.interpolate(logits, scale_factor=STRIDE, mode="bilinear", align_corners=self.align_corners)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float32 (B, classes, H, W), of images uint8 (B, H, W, 3); H and W are multiples of 8."""
        return self.classify(self.encoder(images))
