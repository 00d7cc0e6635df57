"""Layers that compute the same function as torchvision's, faster; parameters, buffers and their names stay the same.

All speed-ups of training are in this file, and CSG_PLAIN_LAYERS=1 in the environment switches them off together. The
results agree up to rounding. docs/performance-notes.md says what each one gains, benchmarks/training/train_step.py
measures it:

- A frozen batch norm is folded into the convolution before it, in every forward pass (FoldingConv2d).
- On a CPU, oneDNN's backward pass of depthwise convolutions has slow cases. A strided one stays float32 under
  autocast; a dilated one trains on interleaved grids (FoldingConv2d).
- On a CPU, a 3 x 3 convolution to few channels at a large dilation trains tap by tap (DilatedConv2d).
"""

from __future__ import annotations

import functools
import itertools
import os
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Strategy = Literal["plain", "float32", "grids", "taps"]


def fast_layers_enabled() -> bool:
    """Whether new networks get the layers of this file: yes, unless the environment has CSG_PLAIN_LAYERS=1."""
    return os.environ.get("CSG_PLAIN_LAYERS", "0") in ("", "0")


class FoldingConv2d(nn.Conv2d):
    """A convolution that takes the batch norm after it into its weights while that batch norm is in eval mode.

    With g = gamma / sqrt(variance + eps): norm(w * x) = (g w) * x + beta - g mean. The norm then costs a pass over the
    weights and none over the maps. Gradients still reach w, gamma and beta.

    Args:
        conv: the convolution to replace, whose parameters this one takes.
        norm: the batch norm after it, if it is to be folded in.
    """

    def __init__(self, conv: nn.Conv2d, norm: FoldedBatchNorm2d | None = None):
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            kernel_size=cast(tuple[int, int], conv.kernel_size),
            stride=cast(tuple[int, int], conv.stride),
            padding=cast(tuple[int, int], conv.padding),
            dilation=cast(tuple[int, int], conv.dilation),
            groups=conv.groups,
            bias=conv.bias is not None,
            device="meta",  # draws no random numbers
        )
        self.weight, self.bias = conv.weight, conv.bias
        self.train(conv.training)
        # in a tuple, so that it is not a submodule of this one too
        self.norm: tuple[FoldedBatchNorm2d, ...] = () if norm is None else (norm,)

    def strategy(self, x: Tensor) -> Strategy:
        """How the convolution of a map is computed."""
        if x.device.type != "cpu" or not self.groups == self.in_channels > 1:
            return "plain"
        if self.stride != (1, 1):
            return "float32" if torch.is_autocast_enabled("cpu") else "plain"
        return "grids" if self.dilation != (1, 1) and self.training and torch.is_grad_enabled() else "plain"

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        if self.norm and not self.norm[0].training:
            weight, bias = folded_weights(self, self.norm[0])
        strategy = self.strategy(x)
        if strategy == "grids":
            return self._by_grids(x, weight, bias)
        if strategy == "float32":
            with torch.autocast("cpu", enabled=False):
                return cast(Tensor, self._conv_forward(x.float(), weight, bias))
        return cast(Tensor, self._conv_forward(x, weight, bias))

    def _by_grids(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution at dilation r, as an undilated one on every r-th row and column: (B r r, C, H / r, W / r).

        Padding the map to a multiple of r adds zeros where the dilated kernel finds zeros anyway.
        """
        rate, (height, width), channels = self.dilation[0], x.shape[2:], self.out_channels
        if height % rate or width % rate:
            x = F.pad(x, (0, -width % rate, 0, -height % rate))
        rows, columns = x.shape[2] // rate, x.shape[3] // rate
        x_BHWC = x.permute(0, 2, 3, 1)  # a view if x is channels_last: whole pixels are moved, once each way
        grids = x_BHWC.reshape(-1, rows, rate, columns, rate, channels).permute(0, 2, 4, 1, 3, 5)
        grids = grids.reshape(-1, rows, columns, channels).permute(0, 3, 1, 2)
        grids = F.conv2d(grids, weight, bias, padding=self.kernel_size[0] // 2, groups=self.groups)
        y = grids.permute(0, 2, 3, 1).reshape(-1, rate, rate, rows, columns, channels).permute(0, 3, 1, 4, 2, 5)
        y = y.reshape(-1, rows * rate, columns * rate, channels).permute(0, 3, 1, 2)
        return y[:, :, :height, :width]


class FoldedBatchNorm2d(nn.BatchNorm2d):
    """A batch norm that does nothing in eval mode, because the FoldingConv2d before it has done its work.

    Args:
        norm: the batch norm to replace, whose parameters and buffers this one takes.
    """

    def __init__(self, norm: nn.BatchNorm2d):
        super().__init__(norm.num_features, norm.eps, norm.momentum, device="meta")
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.training else x


class DilatedConv2d(nn.Conv2d):
    """A 3 x 3 convolution whose outputs are as large as its inputs (padding = dilation).

    Trained on a CPU, it is one 1 x 1 convolution with all its taps, whose results are shifted and added; taps that
    reach beyond the other side of the map are left out.
    """

    def strategy(self, x: Tensor) -> Strategy:
        """How the convolution of a map is computed."""
        return "taps" if x.device.type == "cpu" and self.training and torch.is_grad_enabled() else "plain"

    def forward(self, x: Tensor) -> Tensor:
        if self.strategy(x) == "plain":
            return super().forward(x)
        rate, sides = self.dilation[0], x.shape[2:]
        reaching = [[tap for tap in range(3) if abs(tap - 1) * rate < side] for side in sides]
        taps = list(itertools.product(*reaching))
        kernels = torch.cat([self.weight[:, :, row, column] for row, column in taps])
        maps = F.conv2d(x, kernels[:, :, None, None]).chunk(len(taps), 1)
        shifted = (_shift(y, (tap[0] - 1) * rate, (tap[1] - 1) * rate) for y, tap in zip(maps, taps, strict=True))
        y: Tensor = functools.reduce(torch.add, shifted)
        return y if self.bias is None else y + self.bias[:, None, None]


def _shift(x: Tensor, down: int, right: int) -> Tensor:
    """y[i, j] = x[i + down, j + right], zero beyond the map."""
    height, width = x.shape[2:]
    inside = x[:, :, max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)]
    return F.pad(inside, (max(0, -right), max(0, right), max(0, -down), max(0, down)))


def dilated_conv2d(in_channels: int, out_channels: int, rate: int) -> nn.Conv2d:
    """A 3 x 3 convolution at dilation `rate` that keeps the size of its input."""
    kind = DilatedConv2d if fast_layers_enabled() else nn.Conv2d
    return kind(in_channels, out_channels, 3, padding=rate, dilation=rate)


def folded_weights(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that does the work of both; `conv` has no bias."""
    assert norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return conv.weight * gain[:, None, None, None], norm.bias - norm.running_mean * gain


def use_fast_layers(module: nn.Module) -> None:
    """Replace each convolution without a bias that is followed by a batch norm, and that batch norm; in place."""
    if not fast_layers_enabled():
        return
    for (conv_name, conv), (norm_name, norm) in itertools.pairwise(list(module.named_children())):
        if type(conv) is nn.Conv2d and conv.bias is None and type(norm) is nn.BatchNorm2d:
            folded = FoldedBatchNorm2d(norm)
            module.register_module(conv_name, FoldingConv2d(conv, folded))
            module.register_module(norm_name, folded)
    for child in module.children():
        use_fast_layers(child)


def fold_batch_norms(module: nn.Module) -> None:
    """Fold batch norms into their FoldingConv2d for good, in a network that is not trained any more; in place."""
    for (conv_name, conv), (norm_name, norm) in itertools.pairwise(list(module.named_children())):
        if isinstance(conv, FoldingConv2d) and conv.norm == (norm,):
            both = fuse_conv_bn_eval(conv, conv.norm[0])
            both.norm = ()
            module.register_module(conv_name, both)
            module.register_module(norm_name, nn.Identity())
    for child in module.children():
        fold_batch_norms(child)
