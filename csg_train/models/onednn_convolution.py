"""A convolution of oneDNN on a CPU that applies the ReLU6 after it, and whose backward pass has no slow case.

`F.conv2d` followed by `F.relu6` writes the map, copies it for the backward pass, and reads and writes it again. Here
the kernel of the convolution clamps its results before it writes them, and the backward pass reads where a value lies
between 0 and 6 from the map that the next layer keeps anyway: the same values and gradients, bit for bit.

oneDNN computes the gradient of a strided depthwise convolution's bf16 input in a reference loop, 10 to 70 times slower
than the convolution. It is the convolution, with the kernel turned by 180 degrees, of the output's gradient with
zeros between its rows and columns; that one has a fast kernel. The bf16 gradient of a depthwise kernel larger than
3 x 3 is another such loop: that of 4 to 6 rows and columns is put together from gradients of four 3 x 3 kernels. For a
larger kernel there would be nine, which gain nothing on more than one thread.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

PART = 3
"""Rows and columns of the largest depthwise kernel whose bf16 gradient oneDNN computes fast."""


def in_parts(side: int) -> bool:
    """Whether the gradient of a depthwise kernel with this many rows or columns is computed in parts."""
    return PART < side <= 2 * PART


@functools.cache
def supported(dtype: torch.dtype) -> bool:
    """Whether this machine's torch has oneDNN's convolutions for maps of a dtype: float32 or, on some CPUs, bf16."""
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not available or not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


@dataclass(frozen=True)
class Shape:
    """What a convolution has besides its weights."""

    stride: list[int]
    """Rows and columns between outputs."""
    padding: list[int]
    """Zeros on each side, by rows and columns."""
    dilation: list[int]
    """Rows and columns between the taps of the kernel."""
    groups: int
    """Groups of channels; as many as channels in a depthwise convolution."""
    relu6: bool
    """Whether the outputs are clamped to 0 .. 6."""

    @classmethod
    def of(cls, conv: nn.Conv2d, relu6: bool) -> Shape:
        """The shape of a module whose padding is given in numbers."""
        assert not isinstance(conv.padding, str)
        return cls(list(conv.stride), list(conv.padding), list(conv.dilation), conv.groups, relu6)

    def strided_depthwise(self, weight: Tensor) -> bool:
        """Whether the gradient of the input is computed with zeros inserted; weight: (C, 1, rows, columns)."""
        reaches = all(pad < side for pad, side in zip(self.padding, weight.shape[2:], strict=True))
        return self._depthwise(weight) and reaches and max(self.stride) > 1

    def large_depthwise(self, weight: Tensor) -> bool:
        """Whether the gradient of the kernel is computed in parts; weight: (C, 1, rows, columns)."""
        return self._depthwise(weight) and min(weight.shape[2:]) >= PART and in_parts(max(weight.shape[2:]))

    def _depthwise(self, weight: Tensor) -> bool:
        return weight.shape[1] == 1 and weight.shape[0] == self.groups > 1 and self.dilation == [1, 1]


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, shape: Shape) -> Tensor:
    """The convolution, and its ReLU6, in the dtype of autocast if it is on.

    Args:
        x: (B, C, H, W) on a CPU, of a dtype that is `supported`, as autocast's.
        weight: (D, C / groups, rows, columns).
        bias: (D,).
        shape: the rest.

    Example:
        ``convolution(x, conv.weight, conv.bias, Shape.of(conv, relu6=True))`` is ``relu6(conv(x))``.
    """
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weight.dtype
    y: Tensor = _Convolution.apply(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype), shape)
    return y


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, shape: Shape) -> Tensor:
        clamp, limits = ("hardtanh", [0.0, 6.0]) if shape.relu6 else ("none", [])
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, weight, bias, shape.padding, shape.stride, shape.dilation, shape.groups, clamp, limits, ""
        )
        ctx.save_for_backward(x, weight, *([y] if shape.relu6 else []))
        ctx.shape, ctx.bias = shape, bias is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight, *y = ctx.saved_tensors
        shape: Shape = ctx.shape
        if y:
            gradient = torch.ops.aten.hardtanh_backward(gradient, y[0], 0.0, 6.0)
        needed = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.bias and ctx.needs_input_grad[2]]
        own: list[Tensor | None] = [None, None, None]
        if needed[0] and x.dtype == torch.bfloat16 and shape.strided_depthwise(weight):
            own[0], needed[0] = _of_strided_input(gradient, x, weight, shape), False
        if needed[1] and x.dtype == torch.bfloat16 and shape.large_depthwise(weight):
            own[1], needed[1] = _of_large_kernel(gradient, x, weight, shape), False
            if needed[2]:  # oneDNN computes it with the kernel's
                own[2], needed[2] = gradient.sum((0, 2, 3)), False
        found = torch.ops.aten.convolution_backward(
            gradient,
            x,
            weight,
            [weight.shape[0]],
            shape.stride,
            shape.padding,
            shape.dilation,
            False,
            [0, 0],
            shape.groups,
            needed,
        )
        gradients = [one if one is not None else other for one, other in zip(own, found, strict=True)]
        return gradients[0], gradients[1], gradients[2], None


def _of_strided_input(gradient: Tensor, x: Tensor, weight: Tensor, shape: Shape) -> Tensor:
    """The gradient of a strided depthwise convolution's input, (B, C, H, W)."""
    (rows, columns), (top, left) = weight.shape[2:], shape.padding
    height, width = x.shape[2] - rows + 1 + 2 * top, x.shape[3] - columns + 1 + 2 * left
    spread = gradient.new_zeros(len(x), height, width, x.shape[1]).permute(0, 3, 1, 2)
    spread[:, :, :: shape.stride[0], :: shape.stride[1]] = gradient
    return F.conv2d(spread, weight.flip(2, 3), padding=(rows - 1 - top, columns - 1 - left), groups=shape.groups)


def _of_large_kernel(gradient: Tensor, x: Tensor, weight: Tensor, shape: Shape) -> Tensor:
    """The gradient of a depthwise kernel, (C, 1, rows, columns), of four parts of 3 x 3 that may overlap."""
    (top, left), (down, right) = shape.padding, shape.stride
    padded = F.pad(x, (left, left, top, top))
    height, width = ((side - 1) * step + PART for side, step in zip(gradient.shape[2:], shape.stride, strict=True))
    found, part = torch.empty_like(weight), weight.new_empty(len(weight), 1, PART, PART)
    for row, column in itertools.product(*({0, side - PART} for side in weight.shape[2:])):
        seen = padded[:, :, row : row + height, column : column + width]
        found[:, :, row : row + PART, column : column + PART] = torch.ops.aten.convolution_backward(
            gradient,
            seen.contiguous(memory_format=torch.channels_last),
            part,
            None,
            [down, right],
            [0, 0],
            [1, 1],
            False,
            [0, 0],
            shape.groups,
            [False, True, False],
        )[1]
    return found
