"""The ImageNet classifier of a timm network, on the map of its last stage."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from csg_train.models.names import TIMM

AFTER_LAST_MAP = {
    "ConvNeXt": (),
    "EfficientNet": ("conv_head", "bn2"),
    "MobileNetV3": (),
    "RegNet": (),
    "ResNet": (),
    "SwinTransformer": (),
    "SwinTransformerV2": (),
}
"""timm's classes of networks whose classifier takes the last map, and their layers between it and `forward_head`.

A ViT whose classifier takes the class token has none on its maps.
"""
HEAD_PARTS = (
    "conv_head",
    "bn2",
    "flatten",
    "global_pool",
    "norm_head",
    "act2",
    "head",
    "head_drop",
    "fc",
    "classifier",
    "norm_pre",
)


class TimmClassifier(nn.Module):
    """The map of layer4, (B, C, H, W), to the ImageNet logits (B, 1000); everything before it is left out."""

    def __init__(self, model: Any):
        super().__init__()
        kind = type(model).__name__
        self.before = nn.Sequential(*(getattr(model, part) for part in AFTER_LAST_MAP[kind]))
        self.swin = kind.startswith("Swin")
        for part, _ in list(model.named_children()):
            if part not in HEAD_PARTS:
                setattr(model, part, nn.Identity())
        self.model = model

    def forward(self, map_BCHW: Tensor) -> Tensor:
        x = self.before(map_BCHW)
        logits: Tensor = self.model.forward_head(x.permute(0, 2, 3, 1) if self.swin else x)
        return logits


def timm_classifier(name: str, weights: dict[str, Tensor]) -> TimmClassifier | None:
    """The classifier of a network and its weights; None if these have none, or it takes no map.

    Args:
        name: `timm:<name>`.
        weights: state dict of the whole network, as timm has it.
    """
    import timm

    with torch.device("meta"):
        model = timm.create_model(name.removeprefix(TIMM))
    own = model.state_dict()
    fits = own.keys() <= weights.keys() and all(weights[key].shape == value.shape for key, value in own.items())
    if type(model).__name__ not in AFTER_LAST_MAP or model.num_classes != 1000 or not fits:
        return None
    model = timm.create_model(name.removeprefix(TIMM))
    model.load_state_dict({key: weights[key] for key in own})
    return TimmClassifier(model)
