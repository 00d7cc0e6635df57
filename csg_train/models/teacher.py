"""The teacher: the frozen ImageNet network (docs/method.md section 2)."""

from __future__ import annotations

import re

from torch import Tensor, nn

from csg.errors import UsageError
from csg_train.models.backbones import BACKBONES, IBN, Backbone, Encoder
from csg_train.models.fast_layers import fold_batch_norms
from csg_train.models.ibn import published_variant
from csg_train.models.timm_classifier import TimmClassifier, timm_classifier


class Teacher(nn.Module):
    """An encoder with ImageNet weights in eval mode, and its ImageNet classifier; nothing of it is trained.

    The teacher of a student with instance norms is the network without them, unless the weights are IBN-Net's own.

    Args:
        name: the student's backbone.
        weights: the ImageNet state dict of the backbone, as torchvision, timm or IBN-Net has it.
        dilated: at output stride 8, for segmentation.
        size: height and width of all images; None: any (`Encoder`).
    """

    def __init__(
        self, name: str, weights: dict[str, Tensor], dilated: bool = False, size: tuple[int, int] | None = None
    ):
        super().__init__()
        if published_variant(weights) is None:
            name = re.sub(rf"_({'|'.join(IBN)})$", "", name)
        self.dilated = dilated
        self.encoder = Encoder(name, weights, freeze_batch_norm=True, dilated=dilated, size=size).eval()
        self.head: nn.Module | None = None
        if name in BACKBONES:
            self.head = _imagenet_classifier(BACKBONES[name], weights)
        else:
            self.head = timm_classifier(name, weights)
        fold_batch_norms(self.encoder.stages)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The map of each stage, (B, C, H/s, W/s), of images uint8 (B, H, W, 3)."""
        maps: dict[str, Tensor] = self.encoder(images)
        return maps

    def check_classifier(self) -> None:
        """Check that there is an ImageNet classifier that takes layer4.

        Raises:
            UsageError: the weights have none, or the network's classifier takes a class token.
        """
        if self.head is None:
            raise UsageError(
                "the backbone's weights have no ImageNet classifier of layer4, which this method needs",
                "use a backbone that has one, such as resnet50 or timm:convnext_tiny, with all its weights",
            )

    def classify(self, maps: dict[str, Tensor], pooled: bool = True) -> Tensor:
        """ImageNet logits of the maps of any encoder, with gradients to the maps.

        Args:
            maps: those of the encoder; only layer4 is used.
            pooled: average layer4 over its positions first, as the ImageNet network does.

        Returns:
            (B, 1000), of the pooled layer4, or (B * H * W, 1000), of each position of layer4.

        Raises:
            UsageError: there is no classifier (`check_classifier`).
        """
        self.check_classifier()
        assert self.head is not None
        map_BCHW = maps["layer4"]
        if isinstance(self.head, TimmClassifier):
            whole = map_BCHW if pooled else map_BCHW.permute(0, 2, 3, 1).flatten(0, 2)[:, :, None, None]
            found: Tensor = self.head(whole)
            return found
        features = map_BCHW.mean((2, 3)) if pooled else map_BCHW.permute(0, 2, 3, 1).flatten(0, 2)
        logits: Tensor = self.head(features)
        return logits


def _imagenet_classifier(row: Backbone, weights: dict[str, Tensor]) -> nn.Module | None:
    """The ImageNet classifier of a backbone; None if the weights have none."""
    classifier, prefix = row.build().get_submodule(row.head), row.head + "."
    state = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    if not state:
        return None
    classifier.load_state_dict(state)
    return classifier
