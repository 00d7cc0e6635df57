"""Families of encoders and how each is trained best, without torch and timm: recipes read this.

A family is chosen by the name of a backbone. Values by family take the place of a recipe's own where a user asks for a
backbone of a family that is trained in another way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from csg_train.models.names import TIMM

Family = Literal["resnet", "mobile", "convnext", "swin", "vit"]
PATTERNS: tuple[tuple[str, Family], ...] = (
    (r"convnext", "convnext"),
    (r"swin", "swin"),
    (r"mobilevit|mobileone|fastvit|repvit", "mobile"),
    (r"(.*_)?(vit|deit3?|beit(v2)?|eva(02)?|samvit|flexivit|naflexvit|cait|xcit)(_|$|\d)", "vit"),
    (r"(tf_)?(efficientnet|mobilenet|mixnet|mnasnet|ghostnet|lcnet|tinynet|fbnet)", "mobile"),
)
"""Starts of timm's names; what none matches is trained like a ResNet."""


@dataclass(frozen=True)
class FamilyDefaults:
    """Values of settings of `optim`."""

    optimizer: Literal["sgd", "adamw"]
    lr_backbone: float
    lr_heads: float
    weight_decay: float
    layer_decay: float
    warm_up: int


SGD = FamilyDefaults("sgd", lr_backbone=1e-5, lr_heads=1e-4, weight_decay=5e-4, layer_decay=1.0, warm_up=100)
DEFAULTS: Mapping[Family, FamilyDefaults] = {
    "resnet": SGD,
    "mobile": SGD,
    "convnext": FamilyDefaults("adamw", 5e-5, 5e-4, 0.05, 0.8, 100),
    "swin": FamilyDefaults("adamw", 6e-5, 6e-4, 0.01, 1.0, 100),
    "vit": FamilyDefaults("adamw", 1e-4, 1e-3, 0.05, 0.75, 100),
}
"""Defaults by family.

- resnet, mobile: the published recipe (docs/method.md section 6).
- convnext: rate and layer decay of fine-tuning from ImageNet-22K (Liu et al. 2022, A ConvNet for the 2020s, and its
  code), weight decay of its semantic segmentation.
- swin: rate and weight decay of semantic segmentation (Liu et al. 2021, Swin Transformer, and its code), which
  DAFormer (Hoyer et al. 2022, section 4.1) takes for transformers from synthetic to real, with ten times the rate for
  the head.
- vit: weight decay and layer decay of fine-tuning (He et al. 2022, Masked Autoencoders, table 9), and its rate,
  1e-3 for 256 images, for a batch of 32, rounded down. Its code has them for ViT-L and -H; for ViT-B 5e-4 and 0.65.

Heads have ten times the rate of the backbone, as in the published recipe. The warm-up of the papers, epochs of large
data, is the published recipe's 100 steps here.
"""
RECTIFIED: frozenset[Family] = frozenset({"resnet", "mobile"})
"""Families whose maps A-pool takes through a ReLU; the maps of the others are about half negative."""


def family_of(backbone: str) -> Family:
    """The family of a backbone.

    Args:
        backbone: its name, `timm:<name>` for those of timm.

    Example:
        >>> [family_of(name) for name in ("resnet50_ibn_a", "timm:vit_small_patch14_dinov2", "timm:efficientnet_b0")]
        ['resnet', 'vit', 'mobile']
    """
    name = backbone.removeprefix(TIMM)
    return next((family for pattern, family in PATTERNS if re.match(pattern, name)), "resnet")


def family_settings(old: str, new: str) -> dict[str, Any]:
    """The settings, by dotted name, that change with a backbone; empty if both are trained in the same way.

    Args:
        old: the recipe's own backbone.
        new: the one that is asked for.

    Example:
        >>> family_settings("mobilenet_v2", "timm:swin_tiny_patch4_window7_224")["optim.lr_backbone"]
        6e-05
        >>> family_settings("mobilenet_v2", "resnet50")
        {}
    """
    before, after = DEFAULTS[family_of(old)], DEFAULTS[family_of(new)]
    return {} if before == after else {f"optim.{name}": value for name, value in asdict(after).items()}
