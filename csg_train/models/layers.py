"""Layers that compute what torchvision's compute, sooner; parameters, buffers and their names stay as they are."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class Normalise(nn.Module):
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W) in channels_last layout: (x / 255 - mean) / std."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, 255 * torch.tensor(values).reshape(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images.permute(0, 3, 1, 2).float() - self.mean) / self.std


class Convolution(nn.Conv2d):
    """A convolution that takes the batch norm behind it into its weights while that one is frozen.

    With g = gamma / sqrt(variance + eps): norm(w * x) = (g w) * x + beta - g mean, so the norm costs a pass over the
    weights and none over the maps; gradients reach w, gamma and beta all the same.

    Strided and depthwise, it stays float32 under a CPU's autocast: the bf16 backward in oneDNN takes more than ten
    times as long (benchmarks/train_step.py).
    """

    norm: tuple[nn.BatchNorm2d, ...] = ()  # in a tuple: no submodule

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        if self.norm and not self.norm[0].training:
            weight, bias = folded(self, self.norm[0])
        strided_depthwise = self.groups == self.in_channels > 1 and self.stride != (1, 1)
        if strided_depthwise and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return cast(Tensor, self._conv_forward(x.float(), weight, bias))
        return cast(Tensor, self._conv_forward(x, weight, bias))


class FoldedNorm(nn.BatchNorm2d):
    """A batch norm that, while frozen, leaves its work to the convolution before it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.training else x


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that does both; `conv` has no bias of its own."""
    assert norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return conv.weight * gain[:, None, None, None], norm.bias - norm.running_mean * gain


def speed_up(module: nn.Module) -> None:
    """Give convolutions, and the batch norms that stand right behind them, the classes above; in place."""
    for conv, norm in itertools.pairwise(list(module.children())):
        if type(conv) is nn.Conv2d and conv.bias is None and type(norm) is nn.BatchNorm2d:
            conv.__class__, norm.__class__ = Convolution, FoldedNorm
            cast(Convolution, conv).norm = (norm,)
    for child in module.children():
        speed_up(child)


def fuse(module: nn.Module) -> None:
    """Fold frozen batch norms into the convolutions before them for good, in a network that never trains; in place."""
    for (conv_name, conv), (norm_name, norm) in itertools.pairwise(list(module.named_children())):
        if isinstance(conv, Convolution) and conv.norm == (norm,):
            both = fuse_conv_bn_eval(conv, conv.norm[0])
            both.norm = ()
            module.register_module(conv_name, both)
            module.register_module(norm_name, nn.Identity())
    for child in module.children():
        fuse(child)
