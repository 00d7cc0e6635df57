"""The names of the backbones, without torch: recipes and the completion in a shell check and list them."""

from __future__ import annotations

from csg.did_you_mean import use_one_of
from csg.errors import UsageError

TIMM = "timm:"
"""Start of the name of a timm model."""
PLAIN_NAMES = ("mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101")
"""The rows of `csg_train.models.backbones.PLAIN`."""
VARIANTS = ("ibn_a", "ibn_b")
"""What may be appended to a name with an underscore: the variants with instance norm."""
BACKBONE_NAMES = (*PLAIN_NAMES, *(f"{name}_{variant}" for name in PLAIN_NAMES for variant in VARIANTS))
"""All names but those of timm."""


def check_backbone(name: str) -> str:
    """The name itself.

    Raises:
        UsageError: there is no such backbone.
    """
    if name in BACKBONE_NAMES or (name.startswith(TIMM) and not name.endswith(VARIANTS)):
        return name
    more = ", each with _ibn_a or _ibn_b appended if you like, or timm:<name>"
    raise UsageError(f"there is no backbone {name!r}", use_one_of(name, PLAIN_NAMES, more))
