"""Encoders with named stages, cut from the classification models of torchvision or timm.

Every encoder takes images as they come from a file, uint8 (B, H, W, 3), and normalises them itself, so that training,
validation and the exported graph cannot differ. It returns the map of each stage, (B, C, H/s, W/s), with the strides
s of `Encoder.strides`: 4, 8, 16, 32 for layer1 to layer4, but in a plain ViT the side of a patch for all.

A backbone is one row of PLAIN, and its name in csg_train/models/names.py (docs/how-to/backbone.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from csg.card import STRIDE, Channels
from csg_train.models import timm_model
from csg_train.models.batch_norm import batch_norms
from csg_train.models.dilation import dilate
from csg_train.models.fast_layers import use_fast_layers
from csg_train.models.ibn import ibn_a, ibn_b, published_name, published_variant
from csg_train.models.names import TIMM, check_backbone
from csg_train.models.timm_backbone import TimmStages

STAGES = ("layer1", "layer2", "layer3", "layer4")
"""Names of the stages from input to output."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Backbone:
    """A row of the table of backbones."""

    build: Callable[[], nn.Module]
    """Makes torchvision's classification model with random weights."""
    weights: torchvision.models.WeightsEnum
    """Its ImageNet weights."""
    cut: Callable[[Any], dict[str, nn.Sequential]]
    """Takes layer1 to layer4 out of the model."""
    channels: dict[str, int]
    """Channels of the map of each stage."""
    head: str
    """Name of the ImageNet classifier inside the model."""
    change: Callable[[dict[str, nn.Sequential]], None] | None = None
    """Changes the stages in place once they have their weights."""


def _cut_resnet(model: Any) -> dict[str, nn.Sequential]:
    stem = [model.conv1, model.bn1, model.relu, model.maxpool]
    layers = {name: getattr(model, name) for name in ("layer2", "layer3", "layer4")}
    return {"layer1": nn.Sequential(*stem, *model.layer1), **layers}


def _cut_mobilenet_v2(model: Any) -> dict[str, nn.Sequential]:
    """Stages by stride. layer1 to layer3 end in a linear bottleneck, without ReLU; layer4 ends in ReLU6."""
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


def normalisation(name: str) -> tuple[Channels, Channels]:
    """Mean and standard deviation of the channels, in 0..1, that the weights of a backbone were trained with."""
    if name.startswith(TIMM):
        return timm_model.normalisation(name)
    return IMAGENET_MEAN, IMAGENET_STD


class Normalise(nn.Module):
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W) in channels_last layout: (x / 255 - mean) / std.

    Args:
        mean, std: of the channels, in 0..1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, 255 * torch.tensor(values).reshape(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.float().permute(0, 3, 1, 2)  # in this order: TensorRT cannot permute uint8
        return (pixels - self.mean) / self.std


class Stages(nn.ModuleDict):
    """Stages applied one after the other: (B, 3, H, W) to the map of each."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = {}
        for name, stage in self.items():
            maps[name] = x = stage(x)
        return maps


def build_stages(name: str, weights: dict[str, Tensor] | None, dilated: bool) -> Stages:
    """The stages of one of torchvision's backbones with the given or random weights.

    Args:
        name: of the backbone.
        weights: as `csg_train.models.weights.load_weights` returns them; None: random ones.
        dilated: at output stride 8.
    """
    row = BACKBONES[check_backbone(name)]
    model = row.build()
    published = weights is not None and published_variant(weights) is not None
    if weights is not None and not published:
        head = {key: value for key, value in model.state_dict().items() if key.startswith(row.head + ".")}
        model.load_state_dict(head | weights)
    cut = row.cut(model)
    if row.change:
        row.change(cut)
    stages = Stages(cut)
    if weights is not None and published:
        names = {key: published_name(key) for key in stages.state_dict()}
        stages.load_state_dict({key: weights[name] for key, name in names.items() if name in weights})
    if dilated:
        dilate(stages)
    use_fast_layers(stages)
    return stages


class Encoder(nn.Module):
    """The normalisation and the stages of a backbone.

    Args:
        name: of the backbone.
        weights: its ImageNet state dict, as torchvision, timm or IBN-Net has it; None: random weights.
        freeze_batch_norm: keep batch norm in eval mode during training, as the published recipe does
            (docs/method.md section 2): its ImageNet statistics are used and not updated, its affine parameters train.
        freeze_affine: do not train these either, as in the published segmentation.
        dilated: for segmentation: at output stride 8, where the backbone can be dilated, and for images of any sides
            that are multiples of 8, which are padded with zeros, after the normalisation, at the right and bottom.
        size: height and width of all images, for backbones whose weights depend on it (timm's transformers); None:
            images of any height and width that `multiple` divides.
    """

    name: str
    """Name of the backbone."""
    channels: dict[str, int]
    """Channels of the map of each stage."""
    strides: dict[str, int]
    """Pixels of the image for a position of the map of each stage."""
    multiple: int
    """Number of pixels that must divide the height and width of images."""
    frozen: bool
    """Whether nothing of it trains now, by `freeze`."""
    pad_to: int
    """Number of pixels to whose multiples images are padded, so that all maps are whole."""

    def __init__(
        self,
        name: str,
        weights: dict[str, Tensor] | None,
        freeze_batch_norm: bool,
        freeze_affine: bool = False,
        dilated: bool = False,
        size: tuple[int, int] | None = None,
    ):
        super().__init__()
        self.name = name
        stages: Stages | TimmStages
        if name.startswith(TIMM):
            stages = TimmStages(name, weights, size, dilated)
            self.channels, self.strides, self.multiple = stages.channels, stages.strides, stages.multiple
            self.pad_to = stages.whole if dilated else 1
        else:
            stages = build_stages(name, weights, dilated)
            self.channels = dict(BACKBONES[name].channels)
            self.strides = dict(zip(STAGES, (4, 8, 8, 8) if dilated else (4, 8, 16, 32), strict=True))
            self.multiple = self.pad_to = STRIDE if dilated else 1
        self.normalise = Normalise(*normalisation(name))
        self.stages = stages.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.freeze_batch_norm = freeze_batch_norm
        self.frozen = False
        self._paused: list[nn.Parameter] = []
        if freeze_affine:
            for norm in batch_norms(self):
                norm.requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The map of each stage, (B, C, H/s, W/s), of images uint8 (B, H, W, 3).

        H/s and W/s are rounded up: of padded images, the positions that hold a pixel of the image.
        """
        pixels = self.normalise(images)
        if not self.pads:
            maps: dict[str, Tensor] = self.stages(pixels)
            return maps
        height, width = images.shape[1:3]
        pixels = F.pad(pixels, (0, self.padded(width) - width, 0, self.padded(height) - height))
        return {
            stage: self._without_padding(stage, found, height, width) for stage, found in self.stages(pixels).items()
        }

    def _without_padding(self, stage: str, padded: Tensor, height: int, width: int) -> Tensor:
        """The map of a padded image without the positions that hold padding alone."""
        if self.strides[stage] == self.pad_to:
            return padded
        return padded[:, :, : self.cells(stage, height), : self.cells(stage, width)]

    @property
    def pads(self) -> bool:
        """Whether it pads images whose sides are multiples of 8."""
        return STRIDE % self.pad_to != 0

    def padded(self, side: int) -> int:
        """The side of an image, in pixels, with what is added to it."""
        return (side + self.pad_to - 1) // self.pad_to * self.pad_to

    @property
    def example_size(self) -> tuple[int, int]:
        """Height and width of an image to export a graph of free size with.

        A Swin's maps have more than one window each way there: torch.export takes a number that is 1 in its example,
        such as that of windows, for a constant.
        """
        window = self.stages.window if isinstance(self.stages, TimmStages) else 0
        return (window + self.pad_to, 2 * window + self.pad_to) if window else (16 * STRIDE, 24 * STRIDE)

    def cells(self, stage: str, side: int) -> int:
        """How many positions of a stage's map hold pixels of an image with a side, in pixels."""
        stride = self.strides[stage]
        return (side + stride - 1) // stride

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters that train, by stage from input to output; the stem belongs to the first."""
        groups: dict[str, list[nn.Parameter]] = {}
        for stage, block in self._blocks_of_stages():
            groups.setdefault(stage, []).extend(p for p in block if p.requires_grad)
        return groups

    def blocks(self) -> list[list[nn.Parameter]]:
        """Parameters that train, by block from input to output, for learning rates that fall with the depth.

        The first is the stem. Blocks without a parameter that trains are left out.
        """
        blocks = ([p for p in block if p.requires_grad] for _, block in self._blocks_of_stages())
        return [block for block in blocks if block]

    def _blocks_of_stages(self) -> Iterator[tuple[str, list[nn.Parameter]]]:
        """The blocks from input to output, each with the name of its stage."""
        if isinstance(self.stages, TimmStages):
            model = self.stages.model
            for stage, names in zip(self.stages.stage_of_blocks(), self.stages.blocks(), strict=True):
                yield stage, [model.get_parameter(name) for name in names]
            return
        for stage, layers in self.stages.items():
            block: list[nn.Parameter] = []
            for layer in layers.children():
                if not isinstance(layer, nn.BatchNorm2d) and block:  # a norm belongs to the layer before it
                    yield stage, block
                    block = []
                block = [*block, *layer.parameters()]
            if block:
                yield stage, block

    def freeze(self) -> None:
        """Train nothing, and stay in eval mode, until `unfreeze`."""
        self.frozen, self._paused = True, [p for p in self.parameters() if p.requires_grad]
        for parameter in self._paused:
            parameter.requires_grad_(False)
        self.eval()

    def unfreeze(self) -> None:
        """Train again what trained before `freeze`."""
        for parameter in self._paused:
            parameter.requires_grad_(True)
        self.frozen, self._paused = False, []
        self.train()

    def train(self, mode: bool = True) -> Encoder:
        super().train(mode and not self.frozen)
        if self.freeze_batch_norm:
            for norm in batch_norms(self):
                norm.eval()
        return self
