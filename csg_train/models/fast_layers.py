"""Layers that compute the same function as torchvision's, faster; parameters, buffers and their names stay the same.

Those of timm's networks are in csg_train/models/timm_layers.py. CSG_PLAIN_LAYERS=1 in the environment switches all off
together. The results agree up to rounding. docs/performance-notes.md says what each one gains,
benchmarks/training/train_step.py measures it:

- A frozen batch norm is folded into the convolution before it, in every forward pass (FoldingConv2d).
- On a CPU, a convolution applies the ReLU6 after it (FoldingConv2d, csg_train/models/onednn_convolution.py).
- On a CPU, oneDNN's backward pass of depthwise convolutions has slow cases. A strided one, and one with a 5 x 5 kernel,
  has a backward pass of its own under autocast (the same file), and stays float32 where that can't be; a dilated one
  trains on interleaved grids (FoldingConv2d).
- On a CPU, a 3 x 3 convolution to few channels at a large dilation trains tap by tap (DilatedConv2d).
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator
from typing import Literal, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from csg_train.models.onednn_convolution import Shape, convolution, in_parts, supported

Strategy = Literal["plain", "onednn", "float32", "grids", "taps"]


class FoldedNorm(Protocol):
    """A batch norm whose work the FoldingConv2d before it does."""

    def without_norm(self, conv: FoldingConv2d) -> nn.Module:
        """What is left of it when the convolution has taken its norm for good."""
        ...


def fast_layers_enabled() -> bool:
    """Whether new networks get the layers of this file: yes, unless the environment has CSG_PLAIN_LAYERS=1."""
    return os.environ.get("CSG_PLAIN_LAYERS", "0") in ("", "0")


class FoldingConv2d(nn.Conv2d):
    """A convolution that takes the batch norm after it into its weights while that batch norm is in eval mode.

    With g = gamma / sqrt(variance + eps): norm(w * x) = (g w) * x + beta - g mean. The norm then costs a pass over the
    weights and none over the maps. Gradients still reach w, gamma and beta. The ReLU6 after the norm is taken in too
    where the strategy is "onednn".

    Args:
        conv: the convolution to replace, whose parameters this one takes.
        norm: the batch norm after it, if it is to be folded in.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None = None):
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
        self.norm: tuple[nn.BatchNorm2d, ...] = () if norm is None else (norm,)
        self.relu6 = False
        """Whether a FoldedReLU6 comes after it and its norm."""

    def strategy(self, x: Tensor) -> Strategy:
        """How the convolution of a map, or of one on the same device, is computed."""
        if x.device.type != "cpu":
            return "plain"
        depthwise, strided = self.groups == self.in_channels > 1, self.stride != (1, 1)
        if depthwise and not strided and self.dilation != (1, 1) and self.training and torch.is_grad_enabled():
            return "grids"
        autocast = torch.is_autocast_enabled("cpu")
        slow = autocast and depthwise and (strided or in_parts(max(self.kernel_size)))
        known = supported(torch.get_autocast_dtype("cpu") if autocast else self.weight.dtype)
        if torch.compiler.is_compiling() or not known:  # in an export too: the graph has the layers by themselves
            return "float32" if slow else "plain"
        return "onednn" if slow or self._takes_relu6() else "plain"

    def clamps(self, x: Tensor) -> bool:
        """Whether its outputs for a map, or for one on the same device, are past the ReLU6 already."""
        return self._takes_relu6() and self.strategy(x) == "onednn"

    def leave_norm(self) -> None:
        """Compute the convolution alone from now on: another norm is in the place of the one after it."""
        self.norm, self.relu6 = (), False

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        if self.norm and not self.norm[0].training:
            weight, bias = folded_weights(self, self.norm[0])
        strategy = self.strategy(x)
        if strategy == "grids":
            return self._by_grids(x, weight, bias)
        if strategy == "onednn":
            return convolution(x, weight, bias, Shape.of(self, self._takes_relu6()))
        if strategy == "float32":
            with torch.autocast("cpu", enabled=False):
                return cast(Tensor, self._conv_forward(x.float(), weight, bias))
        return cast(Tensor, self._conv_forward(x, weight, bias))

    def _takes_relu6(self) -> bool:
        return self.relu6 and not any(norm.training for norm in self.norm)

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
        take_state(self, norm)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.training else x

    def without_norm(self, conv: FoldingConv2d) -> nn.Module:
        """What is left of it when the convolution has taken its norm for good."""
        return nn.Identity()


def take_state(new: nn.BatchNorm2d, norm: nn.BatchNorm2d) -> None:
    """Give a new batch norm the parameters, buffers and mode of the one that it replaces."""
    new.weight, new.bias = norm.weight, norm.bias
    new.running_mean, new.running_var = norm.running_mean, norm.running_var
    new.num_batches_tracked = norm.num_batches_tracked
    new.train(norm.training)


class FoldedReLU6(nn.ReLU6):
    """A ReLU6 that does nothing where the FoldingConv2d before it and its norm has clamped.

    In training it writes a new map: one in place would be copied for the backward pass first.

    Args:
        relu6: the module to replace.
        conv: the convolution.
    """

    def __init__(self, relu6: nn.ReLU6, conv: FoldingConv2d):
        super().__init__(relu6.inplace)
        self.conv = (conv,)  # in a tuple, so that it is not a submodule of this one too
        conv.relu6 = True

    def forward(self, x: Tensor) -> Tensor:
        if self.conv[0].clamps(x):
            return x
        return F.relu6(x, inplace=self.inplace and not torch.is_grad_enabled())


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
    """Replace each convolution without a bias that is followed by a batch norm, that batch norm, and a ReLU6 after it;
    in place."""
    if fast_layers_enabled():
        for part in [*module.modules()]:
            fold_children(part)


def fold_children(module: nn.Module) -> None:
    """As `use_fast_layers`, of the children of a module alone."""
    for (conv_name, conv), (norm_name, norm), (after_name, after) in in_a_row(module):
        if type(conv) is nn.Conv2d and conv.bias is None and type(norm) is nn.BatchNorm2d:
            folded = FoldedBatchNorm2d(norm)
            folding = FoldingConv2d(conv, folded)
            module.register_module(conv_name, folding)
            module.register_module(norm_name, folded)
            if type(after) is nn.ReLU6:
                module.register_module(after_name, FoldedReLU6(after, folding))


def fold_batch_norms(module: nn.Module) -> None:
    """Fold batch norms into their FoldingConv2d for good, in a network that is not trained any more; in place."""
    for (conv_name, conv), (norm_name, norm), (after_name, after) in in_a_row(module):
        if isinstance(conv, FoldingConv2d) and conv.norm == (norm,):
            both = fuse_conv_bn_eval(conv, conv.norm[0])
            both.norm = ()
            module.register_module(conv_name, both)
            module.register_module(norm_name, cast(FoldedNorm, norm).without_norm(both))
            if isinstance(after, FoldedReLU6):
                module.register_module(after_name, FoldedReLU6(after, both))
    for child in module.children():
        fold_batch_norms(child)


def in_a_row(module: nn.Module) -> Iterator[tuple[tuple[str, nn.Module], ...]]:
    """Each child of a module with the two after it, by name; an Identity stands for those beyond the last."""
    children = [*module.named_children(), ("", nn.Identity()), ("", nn.Identity())]
    return zip(children, children[1:], children[2:], strict=False)
