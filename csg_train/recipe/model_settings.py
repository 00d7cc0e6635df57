"""The settings of `model`: the network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from csg.records import Record
from csg_train.models.names import PLAIN_NAMES, TIMM, VARIANTS, check_backbone

BACKBONE_PATTERN = f"^({'|'.join(PLAIN_NAMES)})(_({'|'.join(VARIANTS)}))?$|^{TIMM}."
"""The names of backbones, for editors that check a recipe by its JSON schema."""


class ClassificationModel(Record):
    """The network of a classifier: a backbone and a linear head."""

    backbone: Annotated[str, Field(json_schema_extra={"pattern": BACKBONE_PATTERN})] = "resnet101"
    """mobilenet_v2, resnet18, resnet34, resnet50 or resnet101, each also with _ibn_a or _ibn_b appended; or timm:NAME,
    one of timm's models."""
    weights: str | None = None
    """File with the backbone's pretrained weights (docs/how-to/weights.md); `none`: random weights; null: ImageNet's,
    from torch's cache or a download."""
    freeze_batch_norm: bool = True
    """Keep the backbone's batch norm on its ImageNet statistics (docs/method.md section 2)."""
    freeze_affine: bool = False
    """Keep the scale and shift of the backbone's batch norm too."""

    @model_validator(mode="after")
    def _backbone_exists(self) -> ClassificationModel:
        check_backbone(self.backbone)
        return self


class SegmentationModel(ClassificationModel):
    """The network of a segmenter: a dilated backbone and a head for every pixel."""

    freeze_affine: bool = True
    """Keep the scale and shift of the backbone's batch norm too."""
    head: Literal["aspp", "deeplabv2"] = "aspp"
    """aspp: DeepLabv3's, as in the published code; deeplabv2: the head of the paper (docs/method.md section 7)."""
    align_corners: bool = True
    """Let the corner pixels of the logits and of the image coincide when the logits are brought to the image's size, as
    published (docs/method.md section 7)."""

    @model_validator(mode="after")
    def _dilatable(self) -> SegmentationModel:
        if self.backbone.startswith(TIMM):
            raise ValueError("timm backbones can't be dilated; use one of torchvision's for segmentation")
        return self
