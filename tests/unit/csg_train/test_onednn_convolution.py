"""oneDNN's convolutions: the values and gradients of torch's own layers."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

from csg_train.models import onednn_convolution
from csg_train.models.onednn_convolution import Shape, convolution, supported

of_large_kernel = onednn_convolution._of_large_kernel

BF16 = pytest.param(
    torch.bfloat16, marks=pytest.mark.skipif(not supported(torch.bfloat16), reason="this CPU has no bf16 convolutions")
)


def plain(x, weight, bias, shape):
    """The same by torch's own layers, whose bf16 results are rounded before they are clamped."""
    y = F.conv2d(x, weight, bias, shape.stride, shape.padding, shape.dilation, shape.groups)
    return F.relu6(y) if shape.relu6 else y


def with_gradients(function, x, weight, bias, shape):
    """The output, and the gradients of x, weight and bias for a fixed gradient of the output."""
    given_tensors = [None if t is None else t.clone().requires_grad_() for t in (x, weight, bias)]
    y = function(*given_tensors, shape)
    generator = torch.Generator().manual_seed(1)
    gradient = torch.randn(y.shape, generator=generator).to(y.dtype)
    wanted = [t for t in given_tensors if t is not None]
    return [y.detach(), *torch.autograd.grad(y, wanted, gradient)]


def tensors(dtype, channels, out, groups, kernel, height, width, bias=True):
    generator = torch.Generator().manual_seed(0)
    x = 4 * torch.randn(3, channels, height, width, generator=generator)
    weight = torch.randn(out, channels // groups, *kernel, generator=generator)
    offsets = 3 * torch.randn(out, generator=generator) if bias else None
    x = x.to(dtype, memory_format=torch.channels_last)
    return x, weight.to(dtype), None if offsets is None else offsets.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("groups", "kernel", "stride"), [(1, (1, 1), 1), (1, (3, 3), 2), (16, (3, 3), 1), (2, (3, 3), 1)]
)
def test_relu6_in_the_convolution_is_relu6_after_it_bit_for_bit(dtype, bias, groups, kernel, stride):
    shape = Shape([stride] * 2, [kernel[0] // 2] * 2, [1, 1], groups, relu6=True)
    given_tensors = tensors(dtype, 16, 32 if groups < 16 else 16, groups, kernel, 12, 10, bias)
    found = with_gradients(convolution, *given_tensors, shape)
    expected = with_gradients(plain, *given_tensors, shape)
    assert 0 < (found[0] == 0).float().mean() < 1
    assert (found[0] == 6).any()
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.skipif(not supported(torch.bfloat16), reason="this CPU has no bf16 convolutions")
@given(
    channels=st.integers(2, 20),
    kernel=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    stride=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    sides=st.tuples(st.integers(5, 17), st.integers(5, 17)),
    padding=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    relu6=st.booleans(),
)
def test_gradients_of_depthwise_convolutions_are_those_of_float32(channels, kernel, stride, sides, padding, relu6):
    assume(all(k <= side + 2 * pad for k, side, pad in zip(kernel, sides, padding, strict=True)))
    shape = Shape(list(stride), list(padding), [1, 1], channels, relu6)
    x, weight, bias = tensors(torch.bfloat16, channels, channels, channels, kernel, *sides)
    found = with_gradients(convolution, x, weight, bias, shape)
    y = found[0].float()
    exact = Shape(shape.stride, shape.padding, shape.dilation, channels, relu6=False)
    gradient = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16).float()
    if relu6:
        gradient = gradient * ((y > 0) & (y < 6))
    wide = [t.float().requires_grad_() for t in (x, weight, bias)]
    expected = torch.autograd.grad(plain(*wide, exact), wide, gradient)
    for one, other in zip(found[1:], expected, strict=True):
        assert one.dtype == torch.bfloat16
        size = other.abs().max().clamp_min(1)
        torch.testing.assert_close(one.float() / size, other / size, rtol=0, atol=0.01)


@pytest.mark.skipif(not supported(torch.bfloat16), reason="this CPU has no bf16 convolutions")
@pytest.mark.parametrize("side", [4, 5, 6])
def test_a_large_kernel_has_onednns_gradient_put_together_from_parts(side, monkeypatch):
    shape = Shape([1, 1], [side // 2] * 2, [1, 1], 16, relu6=False)
    given_tensors = tensors(torch.bfloat16, 16, 16, 16, (side, side), 12, 10)
    parts = []
    monkeypatch.setattr(onednn_convolution, "_of_large_kernel", lambda *a: parts.append(a) or of_large_kernel(*a))
    found, expected = with_gradients(convolution, *given_tensors, shape), with_gradients(plain, *given_tensors, shape)
    assert len(parts) == 1
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one / other.abs().max(), other / other.abs().max(), rtol=0, atol=0.01)


def test_gradients_that_nobody_needs_are_not_computed():
    x, weight, bias = tensors(torch.float32, 8, 8, 8, (3, 3), 9, 9)
    shape = Shape([2, 2], [1, 1], [1, 1], 8, relu6=True)
    weight.requires_grad_()
    convolution(x, weight, bias, shape).sum().backward()
    assert x.grad is None
    assert bias.grad is None
    assert weight.grad is not None
    with torch.no_grad():
        assert not convolution(x, weight, bias, shape).requires_grad


def test_the_second_derivative_is_refused_instead_of_wrong():
    x, weight, bias = tensors(torch.float32, 8, 8, 8, (3, 3), 9, 9)
    y = convolution(x.requires_grad_(), weight, bias, Shape([1, 1], [1, 1], [1, 1], 8, relu6=True))
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_other_dtypes_are_left_to_torch():
    assert supported(torch.float32)
    assert not supported(torch.float16)
    assert not supported(torch.float64)
