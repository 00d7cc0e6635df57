"""Encoders with named stages, cut from torchvision's classification models, or timm's.

Every encoder takes images as they come from a file, uint8 (B, H, W, 3), and normalises them itself: training,
validation and the exported graph share this one place. It returns the map of each stage, (B, C, H/s, W/s)
with strides s = 4, 8, 16, 32 for layer1 ... layer4.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from csg.card import Channels
from csg.errors import UsageError
from csg_train.models import timm_backbone
from csg_train.models.dilation import dilate
from csg_train.models.fast_layers import Normalise, fuse, speed_up
from csg_train.models.ibn import ibn_a, ibn_b

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Backbone:
    """A row of the table: how to build the model, where its ImageNet weights are, how to cut it.

    head: name of the ImageNet classifier inside the model. change: what is done to the stages once the weights are in.
    """

    build: Callable[[], nn.Module]
    weights: torchvision.models.WeightsEnum
    cut: Callable[[Any], dict[str, nn.Sequential]]
    channels: dict[str, int]
    head: str
    change: Callable[[dict[str, nn.Sequential]], None] | None = None


def _cut_resnet(model: Any) -> dict[str, nn.Sequential]:
    stem = [model.conv1, model.bn1, model.relu, model.maxpool]
    layers = {name: getattr(model, name) for name in ("layer2", "layer3", "layer4")}
    return {"layer1": nn.Sequential(*stem, *model.layer1), **layers}


def _cut_mobilenet_v2(model: Any) -> dict[str, nn.Sequential]:
    """Stages by stride. layer1-3 end in a linear bottleneck, without ReLU; layer4 ends in ReLU6."""
    cuts = {"layer1": (0, 4), "layer2": (4, 7), "layer3": (7, 14), "layer4": (14, 19)}
    return {name: model.features[start:end] for name, (start, end) in cuts.items()}


def _resnet(depth: int) -> Backbone:
    widths = (64, 128, 256, 512) if depth < 50 else (256, 512, 1024, 2048)
    return Backbone(
        build=getattr(torchvision.models, f"resnet{depth}"),
        weights=torchvision.models.get_model_weights(f"resnet{depth}").IMAGENET1K_V1,
        cut=_cut_resnet,
        channels={f"layer{number}": width for number, width in enumerate(widths, 1)},
        head="fc",
    )


PLAIN: dict[str, Backbone] = {
    "mobilenet_v2": Backbone(
        build=torchvision.models.mobilenet_v2,
        weights=torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1,
        cut=_cut_mobilenet_v2,
        channels={"layer1": 24, "layer2": 32, "layer3": 96, "layer4": 1280},
        head="classifier",
    ),
    **{f"resnet{depth}": _resnet(depth) for depth in (18, 34, 50, 101)},
}
IBN = {"ibn_a": ibn_a, "ibn_b": ibn_b}
BACKBONES = PLAIN | {
    f"{name}_{variant}": dataclasses.replace(row, change=change)
    for name, row in PLAIN.items()
    for variant, change in IBN.items()
}


def known(name: str) -> str:
    """The name, if there is such a backbone.

    Raises:
        UsageError: there is none.
    """
    if name in BACKBONES or (name.startswith(timm_backbone.PREFIX) and not name.endswith(tuple(IBN))):
        return name
    raise UsageError(
        f"there is no backbone {name!r}",
        f"take one of {', '.join(PLAIN)}, with _ibn_a or _ibn_b behind it if you like, or timm:<name>",
    )


def normalisation(name: str) -> tuple[Channels, Channels]:
    """Mean and deviation of the channels, in 0..1, that the backbone's weights were trained with."""
    if name.startswith(timm_backbone.PREFIX):
        return timm_backbone.normalisation(name)
    return IMAGENET_MEAN, IMAGENET_STD


class Stages(nn.ModuleDict):
    """Stages one after the other: (B, 3, H, W) to the map of each."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = {}
        for name, stage in self.items():
            maps[name] = x = stage(x)
        return maps


def build_stages(name: str, weights: dict[str, Tensor] | None, dilated: bool) -> tuple[nn.Module, dict[str, int]]:
    """The stages of backbone `name`, random or with ImageNet weights, dilated or not, and their widths."""
    if name.startswith(timm_backbone.PREFIX):
        timm_stages = timm_backbone.TimmStages(name)
        if weights is not None:
            timm_stages.model.load_state_dict(weights)
        return timm_stages, timm_stages.channels
    row = BACKBONES[known(name)]
    model = row.build()
    if weights is not None:
        model.load_state_dict(weights)
    cut = row.cut(model)
    if row.change:
        row.change(cut)
    stages = Stages(cut)
    if dilated:
        dilate(stages)
    speed_up(stages)
    return stages, row.channels


class Encoder(nn.Module):
    """A backbone's stages behind its normalisation.

    Args:
        freeze_batch_norm: keep batch norm in eval mode during training, as the published recipe does
            (docs/method.md section 2): its ImageNet statistics are used and not updated, its affine parameters train.
        freeze_affine: these do not train either, as in the published segmentation.
        dilated: at output stride 8, for segmentation.
    """

    def __init__(
        self,
        name: str,
        weights: dict[str, Tensor] | None,
        freeze_batch_norm: bool,
        freeze_affine: bool = False,
        dilated: bool = False,
    ):
        super().__init__()
        stages, channels = build_stages(name, weights, dilated)
        self.normalise = Normalise(*normalisation(name))
        self.stages = stages.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.channels = dict(channels)
        self.freeze_batch_norm = freeze_batch_norm
        if freeze_affine:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = self.stages(self.normalise(images))
        return maps

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters that train, by stage; a timm backbone is one group, `backbone`."""
        parts = self.stages.items() if isinstance(self.stages, Stages) else [("backbone", self.stages)]
        return {name: [p for p in part.parameters() if p.requires_grad] for name, part in parts}

    def train(self, mode: bool = True) -> Encoder:
        super().train(mode)
        if self.freeze_batch_norm:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


class Teacher(nn.Module):
    """The frozen ImageNet network: an encoder in eval mode, and its ImageNet classifier (docs/method.md section 2).

    The teacher of a student with instance norms is the network without them.
    """

    def __init__(self, name: str, weights: dict[str, Tensor], dilated: bool = False):
        super().__init__()
        name = re.sub(rf"_({'|'.join(IBN)})$", "", name)
        self.dilated = dilated
        self.encoder = Encoder(name, weights, freeze_batch_norm=True, dilated=dilated).eval()
        self.head: nn.Module | None = None
        if name in BACKBONES:
            model = BACKBONES[name].build()
            model.load_state_dict(weights)
            self.head = model.get_submodule(BACKBONES[name].head)
            fuse(self.encoder.stages)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = self.encoder(images)
        return maps

    def classify(self, maps: dict[str, Tensor]) -> Tensor:
        """ImageNet logits of any encoder's maps; gradients flow through to the maps.

        (B, 1000), of the pooled layer4; dilated (B * H * W, 1000), of each position of it.

        Raises:
            UsageError: the backbone is timm's, whose feature interface has no classifier.
        """
        if self.head is None:
            raise UsageError("timm backbones come without their ImageNet classifier", "take a torchvision backbone")
        map_BCHW = maps["layer4"]
        features = map_BCHW.permute(0, 2, 3, 1).flatten(0, 2) if self.dilated else map_BCHW.mean((2, 3))
        logits: Tensor = self.head(features)
        return logits
