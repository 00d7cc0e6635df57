"""The student for segmentation: an encoder, a head, and bilinear upsampling to the image's size."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from csg_train.models.backbones import Encoder
from csg_train.models.segmentation_heads import PyramidHead, make_head


class Segmenter(nn.Module):
    """Encoder, head, and logits upsampled to the image (docs/method.md section 7).

    The batch norms of the head are in train mode while it trains.

    Args:
        encoder: for segmentation: at output stride 8 where it can be dilated, and padding images to its multiple.
        classes: their number.
        head: `aspp`, `deeplabv2`, `linear` or `pyramid` (`csg_train.models.segmentation_heads.make_head`).
        align_corners: whether the corner pixels of the map and of the image coincide in the upsampling.
    """

    def __init__(self, encoder: Encoder, classes: int, head: str, align_corners: bool):
        super().__init__()
        self.encoder = encoder
        self.head = make_head(head, encoder.channels, encoder.strides, classes)
        self.align_corners = align_corners

    def embed(self, maps: dict[str, Tensor]) -> Tensor:
        """Embeddings of whole images, (B, C): the pooled layer4 of the encoder's maps."""
        return maps["layer4"].mean((2, 3))

    def classify(self, maps: dict[str, Tensor]) -> Tensor:
        """Logits, float32 (B, classes, H, W), of the encoder's maps.

        H and W are those of the images, rounded up to the stride of the logits if the encoder pads images: what is
        more than the image is at the right and at the bottom.
        """
        pyramid = isinstance(self.head, PyramidHead)
        stride = self.head.stride if isinstance(self.head, PyramidHead) else self.encoder.strides["layer4"]
        logits = self.head(maps if pyramid else maps["layer4"]).float()
        return F.interpolate(logits, scale_factor=stride, mode="bilinear", align_corners=self.align_corners)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float32 (B, classes, H, W), of images uint8 (B, H, W, 3); H and W are multiples of 8."""
        logits = self.classify(self.encoder(images))
        return without_padding(logits, images.shape[1], images.shape[2]) if self.encoder.pads else logits


def without_padding(logits: Tensor, height: int, width: int) -> Tensor:
    """The logits of an image, (B, classes, height, width), of those of `Segmenter.classify`."""
    return logits[:, :, :height, :width]
