"""Layers that compute what torchvision's compute, sooner; parameters, buffers and their names stay as they are."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
import torch.nn.functional as F
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
        pixels = images.float().permute(0, 3, 1, 2)  # in this order: TensorRT moves no uint8
        return (pixels - self.mean) / self.std


class Convolution(nn.Conv2d):
    """A convolution that takes the batch norm behind it into its weights while that one is frozen.

    With g = gamma / sqrt(variance + eps): norm(w * x) = (g w) * x + beta - g mean, so the norm costs a pass over the
    weights and none over the maps; gradients reach w, gamma and beta all the same.

    On a CPU, where oneDNN's backward of depthwise convolutions has slow cases (benchmarks/training/train_step.py):
    strided, it stays float32 under autocast; dilated, it trains on the interleaved grids that a dilated kernel sees,
    one by one.
    """

    norm: tuple[nn.BatchNorm2d, ...] = ()  # in a tuple: no submodule

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        if self.norm and not self.norm[0].training:
            weight, bias = folded(self, self.norm[0])
        if self.groups == self.in_channels > 1 and x.device.type == "cpu":
            if self.stride != (1, 1) and torch.is_autocast_enabled("cpu"):
                with torch.autocast("cpu", enabled=False):
                    return cast(Tensor, self._conv_forward(x.float(), weight, bias))
            if self.dilation != (1, 1) and self.training and torch.is_grad_enabled():
                return self._by_grids(x, weight, bias)
        return cast(Tensor, self._conv_forward(x, weight, bias))

    def _by_grids(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The same convolution, rate r: of every r-th row and column at a time, (B r r, C, H / r, W / r), undilated.

        Padding beyond the map to a multiple of r adds zeros where the dilated kernel finds zeros anyway.
        """
        rate, (height, width), channels = self.dilation[0], x.shape[2:], self.out_channels
        if height % rate or width % rate:
            x = F.pad(x, (0, -width % rate, 0, -height % rate))
        rows, columns = x.shape[2] // rate, x.shape[3] // rate
        x_BHWC = x.permute(0, 2, 3, 1)  # a view where x is channels_last: whole pixels are moved, once each way
        grids = x_BHWC.reshape(-1, rows, rate, columns, rate, channels).permute(0, 2, 4, 1, 3, 5)
        grids = grids.reshape(-1, rows, columns, channels).permute(0, 3, 1, 2)
        grids = F.conv2d(grids, weight, bias, padding=self.kernel_size[0] // 2, groups=self.groups)
        y = grids.permute(0, 2, 3, 1).reshape(-1, rate, rate, rows, columns, channels).permute(0, 3, 1, 4, 2, 5)
        y = y.reshape(-1, rows * rate, columns * rate, channels).permute(0, 3, 1, 2)
        return y[:, :, :height, :width]


class DilatedConvolution(nn.Conv2d):
    """A 3 x 3 convolution to few channels at a large rate, padded so that its outputs are as large as its inputs.

    Training on a CPU, where oneDNN's backward of it is slow, it is one 1 x 1 convolution with all its taps, whose
    results are shifted and added; taps that reach beyond the map's other side are left out.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not (x.device.type == "cpu" and self.training and torch.is_grad_enabled()):
            return super().forward(x)
        rate, sides = self.dilation[0], x.shape[2:]
        reaching = [[tap for tap in range(3) if abs(tap - 1) * rate < side] for side in sides]
        taps = list(itertools.product(*reaching))
        kernels = torch.cat([self.weight[:, :, row, column] for row, column in taps])
        found = F.conv2d(x, kernels[:, :, None, None]).chunk(len(taps), 1)
        shifted = (_shift(y, (tap[0] - 1) * rate, (tap[1] - 1) * rate) for y, tap in zip(found, taps, strict=True))
        y: Tensor = functools.reduce(torch.add, shifted)
        return y if self.bias is None else y + self.bias[:, None, None]


def _shift(x: Tensor, down: int, right: int) -> Tensor:
    """y[i, j] = x[i + down, j + right], zero beyond the map."""
    height, width = x.shape[2:]
    inside = x[:, :, max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)]
    return F.pad(inside, (max(0, -right), max(0, right), max(0, -down), max(0, down)))


class FoldedNorm(nn.BatchNorm2d):
    """A batch norm that, while frozen, leaves its work to the convolution before it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.training else x


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Batch norms in train mode normalise by the batch as ever, and their running statistics stay as they are."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


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
