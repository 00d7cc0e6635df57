"""The student for classification: an encoder and a task head."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from csg_train.models.backbones import Encoder

HeadName = Literal["mlp", "linear"]
HIDDEN = 512  # docs/method.md section 2


def make_classifier_head(kind: HeadName, channels: int, classes: int) -> nn.Sequential:
    """`mlp`: Linear(C, 512), ReLU, Linear(512, classes), as published; `linear`: Linear(C, classes)."""
    if kind == "linear":
        return nn.Sequential(nn.Linear(channels, classes))
    return nn.Sequential(nn.Linear(channels, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, classes))


class Classifier(nn.Module):
    """Encoder, global average pooling of layer4, head.

    Source: docs/method.md section 2.

    Args:
        encoder: the encoder.
        classes: their number.
        head: `mlp` or `linear`.
    """

    def __init__(self, encoder: Encoder, classes: int, head: HeadName = "mlp"):
        super().__init__()
        self.encoder = encoder
        self.head = make_classifier_head(head, encoder.channels["layer4"], classes)

    def embed(self, maps: dict[str, Tensor]) -> Tensor:
        """Embeddings (B, C), the pooled layer4, from the encoder's maps."""
        return maps["layer4"].mean((2, 3))

    def classify(self, maps: dict[str, Tensor]) -> Tensor:
        """Logits (B, classes) from the encoder's maps."""
        logits: Tensor = self.head(self.embed(maps))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images, uint8 (B, H, W, 3)."""
        return self.classify(self.encoder(images))
