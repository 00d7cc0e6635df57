"""The student for classification: an encoder and a task head."""

from __future__ import annotations

from torch import Tensor, nn

from csg_train.models.backbones import Encoder


class Classifier(nn.Module):
    """Encoder, global average pooling of layer4, Linear(C, 512), ReLU, Linear(512, classes).

    Source: docs/method.md section 2.
    """

    def __init__(self, encoder: Encoder, classes: int):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(nn.Linear(encoder.channels["layer4"], 512), nn.ReLU(), nn.Linear(512, classes))

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
