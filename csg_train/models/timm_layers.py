"""The fast layers (csg_train/models/fast_layers.py) in timm's convolutional networks; needs the extra `timm`.

timm's batch norms may have the activation inside, and convolutions with TensorFlow's padding pad in every pass.
"""

from __future__ import annotations

from typing import Any, cast

from timm.layers import BatchNormAct2d, Conv2dSame, pad_same
from torch import Tensor, nn

from csg_train.models.fast_layers import (
    FoldedReLU6,
    FoldingConv2d,
    fast_layers_enabled,
    fold_children,
    in_a_row,
    take_state,
)

IN_ORDER = {
    "torch.nn.modules.container": ("Sequential",),
    "timm.layers.conv_bn_act": ("ConvNormAct",),
    "timm.models._efficientnet_blocks": ("ConvBnAct", "DepthwiseSeparableConv", "EdgeResidual", "InvertedResidual"),
    "timm.models._features": ("FeatureListNet",),
    "timm.models.efficientnet": ("EfficientNetFeatures",),
    "timm.models.mobilenetv3": ("MobileNetV3Features",),
    "timm.models.resnet": ("BasicBlock", "Bottleneck"),
}
"""Modules, by file, that apply a convolution and the batch norm after it in the order in which they have them."""


class FoldingConv2dSame(FoldingConv2d):
    """A FoldingConv2d with TensorFlow's padding: as many outputs as inputs, divided by the stride and rounded up."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(pad_same(x, self.kernel_size, self.stride, self.dilation))  # type: ignore[arg-type]


class FoldedBatchNormAct2d(BatchNormAct2d):  # type: ignore[misc]
    """A batch norm with an activation that is the activation alone in eval mode, because of the FoldingConv2d before.

    Args:
        norm: the batch norm to replace, whose parameters, buffers and activation this one takes.
    """

    def __init__(self, norm: BatchNormAct2d):
        super().__init__(norm.num_features, norm.eps, norm.momentum, apply_act=False, device="meta")
        self.drop, self.act = norm.drop, norm.act
        take_state(self, norm)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, super().forward(x) if self.training else self.act(self.drop(x)))

    def without_norm(self, conv: FoldingConv2d) -> nn.Module:
        """What is left of it when the convolution has taken its norm for good."""
        act = FoldedReLU6(self.act, conv) if isinstance(self.act, FoldedReLU6) else self.act
        return act if isinstance(self.drop, nn.Identity) else nn.Sequential(self.drop, act)


def use_fast_layers_of_timm(model: nn.Module) -> None:
    """Replace the convolutions and batch norms of a network by those that compute the same faster; in place."""
    if not fast_layers_enabled():
        return
    for part in [*model.modules()]:
        if type(part).__name__ in IN_ORDER.get(type(part).__module__, ()):
            fold_children(part)
            _fold_with_activation(part)


def _fold_with_activation(module: nn.Module) -> None:
    kinds: dict[Any, type[FoldingConv2d]] = {nn.Conv2d: FoldingConv2d, Conv2dSame: FoldingConv2dSame}
    for (conv_name, conv), (norm_name, norm), _ in in_a_row(module):
        kind = kinds.get(type(conv))
        if kind and isinstance(conv, nn.Conv2d) and conv.bias is None and type(norm) is BatchNormAct2d:
            folded = FoldedBatchNormAct2d(norm)
            folding = kind(conv, folded)
            module.register_module(conv_name, folding)
            module.register_module(norm_name, folded)
            if type(folded.act) is nn.ReLU6 and isinstance(folded.drop, nn.Identity):
                folded.act = FoldedReLU6(folded.act, folding)
