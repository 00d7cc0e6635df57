"""The settings of `model`: the network."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from csg.records import Record
from csg_train.models.names import PLAIN_NAMES, TIMM, VARIANTS, check_backbone
from csg_train.recipe.setting_types import Count

BACKBONE_PATTERN = f"^({'|'.join(PLAIN_NAMES)})(_({'|'.join(VARIANTS)}))?$|^{TIMM}."
"""The names of backbones, for editors that check a recipe by its JSON schema."""


class _Model(Record):
    """A backbone, and how it is trained."""

    backbone: Annotated[str, Field(json_schema_extra={"pattern": BACKBONE_PATTERN})] = "resnet101"
    """mobilenet_v2, resnet18, resnet34, resnet50 or resnet101, each also with _ibn_a or _ibn_b appended; or timm:NAME,
    one of timm's models. Strides of layer1 to layer4: 4, 8, 16, 32; in a plain ViT the side of its patches for all."""
    weights: str | None = None
    """File with the backbone's pretrained weights (docs/how-to/weights.md); `none`: random weights; null: ImageNet's,
    from torch's cache or a download."""
    freeze_batch_norm: bool = True
    """Keep the backbone's batch norm on its ImageNet statistics (docs/method.md section 2)."""
    freeze_affine: bool = False
    """Keep the scale and shift of the backbone's batch norm too."""
    training: Literal["full", "frozen", "lp-ft", "lora"] = "full"
    """What of the backbone trains (docs/how-to/fine-tuning.md). full: all; frozen: nothing; lp-ft: nothing at first,
    then all (Kumar et al. 2022); lora: low-rank changes of its layers (Hu et al. 2021), which are added to the weights
    when the training ends."""
    lora_rank: Count = 8
    """Rank of the changes with `training: lora`, at most that of the layer (Hu et al. 2021, table 6: for GPT-3
    4 or 8 are as good as 64)."""
    keep_features: bool = True
    """Compute once for each image, and keep in memory, what networks give that don't train: a frozen backbone, or a
    teacher. Only where images are not augmented; it changes no result."""

    @model_validator(mode="after")
    def _backbone_exists(self) -> Self:
        check_backbone(self.backbone)
        return self


class ClassificationModel(_Model):
    """The network of a classifier: a backbone and a head."""

    head: Literal["mlp", "linear"] = "mlp"
    """mlp: two linear layers, 512 units between them (docs/method.md section 2); linear: one layer."""


class SegmentationModel(_Model):
    """The network of a segmenter: a backbone, at output stride 8 where that can be, and a head for every pixel."""

    freeze_affine: bool = True
    """Keep the scale and shift of the backbone's batch norm too."""
    head: Literal["aspp", "deeplabv2", "linear", "pyramid"] = "aspp"
    """aspp: DeepLabv3's, as in the published code; deeplabv2: the head of the paper (docs/method.md section 7); both
    with dilations for the stride of the backbone's last map. linear: a 1 x 1 convolution on that map (Strudel et al.
    2021). pyramid: all stages, upsampled to stride 8 or finer and summed (Kirillov et al. 2019)."""
    align_corners: bool = True
    """Let the corner pixels of the logits and of the image coincide when the logits are brought to the image's size, as
    published (docs/method.md section 7)."""
