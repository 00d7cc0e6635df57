"""The fast layers: when each one is used, and that it computes the plain function and its gradients."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from csg_train.models.backbones import Encoder
from csg_train.models.fast_layers import (
    DilatedConv2d,
    FoldedBatchNorm2d,
    FoldedReLU6,
    FoldingConv2d,
    dilated_conv2d,
    fold_batch_norms,
    use_fast_layers,
)
from csg_train.models.teacher import Teacher
from tests.unit.csg_train.test_backbones import PIXELS, random_state


def block(**conv):
    """A convolution and its batch norm, with statistics that matter."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return nn.Sequential(nn.Conv2d(6, 6, 3, bias=False, **conv), norm)


def assert_same(fast, plain, x):
    """Outputs and all gradients are equal up to rounding."""
    results = []
    for module in (fast, plain):
        inputs = x.clone().requires_grad_()
        y = module(inputs)
        results.append([y, *torch.autograd.grad(y.square().sum(), [inputs, *module.parameters()])])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("conv", [{}, {"groups": 6}, {"groups": 6, "dilation": 2, "padding": 2}])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_folded_block_is_the_plain_one_with_the_same_state(conv, frozen):
    plain = block(**conv).train()
    fast = copy.deepcopy(plain)
    use_fast_layers(fast)
    assert [type(layer) for layer in fast] == [FoldingConv2d, FoldedBatchNorm2d]
    assert list(fast.state_dict()) == list(plain.state_dict())
    for module in (fast, plain):
        module[1].train(not frozen)
    assert_same(fast, plain, torch.randn(2, 6, 9, 11))
    torch.testing.assert_close(fast[1].running_mean, plain[1].running_mean)


def test_a_batch_norm_folded_for_good_is_gone():
    plain = block().eval()
    fast = copy.deepcopy(plain)
    use_fast_layers(fast)
    fold_batch_norms(fast)
    assert type(fast[1]) is nn.Identity
    torch.testing.assert_close(fast(x := torch.randn(2, 6, 9, 11)), plain(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("conv", "training", "autocast", "strategy"),
    [
        ({"groups": 6, "dilation": 2}, True, False, "grids"),
        ({"groups": 6, "dilation": 2}, False, False, "plain"),
        ({"groups": 6}, True, True, "plain"),
        ({"groups": 6, "stride": 2}, True, True, "onednn"),
        ({"groups": 6, "stride": 2, "dilation": 2}, True, False, "plain"),
        ({"groups": 6, "stride": 2}, True, False, "plain"),
        ({"dilation": 2}, True, True, "plain"),
        ({"groups": 3, "dilation": 2}, True, False, "plain"),
    ],
)
def test_depthwise_convolutions_are_sped_up_where_onednn_is_slow(conv, training, autocast, strategy):
    layer = FoldingConv2d(nn.Conv2d(6, 6, 3, **conv)).train(training)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert layer.strategy(torch.empty(1, 6, 8, 8)) == strategy
    assert layer.strategy(torch.empty(1, 6, 8, 8, device="meta")) == "plain"


def clamped_block(**conv):
    """A convolution, its batch norm and ReLU6, of which many values lie on both sides of both limits."""
    plain = block(**conv)
    nn.init.uniform_(plain[1].bias, -2, 8)
    return plain.append(nn.ReLU6(inplace=True))


@pytest.mark.parametrize("conv", [{}, {"groups": 6, "stride": 2}, {"groups": 6, "dilation": 2, "padding": 2}])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_a_convolution_clamps_as_the_relu6_after_its_norm(conv, frozen, training):
    plain = clamped_block(**conv).train(training)
    fast = copy.deepcopy(plain)
    use_fast_layers(fast)
    assert [type(layer) for layer in fast] == [FoldingConv2d, FoldedBatchNorm2d, FoldedReLU6]
    assert list(fast.state_dict()) == list(plain.state_dict())
    for module in (fast, plain):
        module[1].train(not frozen)
    x = torch.randn(2, 6, 9, 11)
    assert fast[0].clamps(x) == (frozen and not (training and "dilation" in conv))
    assert_same(fast, plain, x)


def test_a_strided_depthwise_convolution_stays_float32_where_onednn_has_no_dtype():
    plain = nn.Conv2d(6, 6, 3, 2, groups=6, bias=False)
    layer, x = FoldingConv2d(plain), torch.randn(2, 6, 9, 9)
    with torch.autocast("cpu", torch.float16):
        assert layer.strategy(x) == "float32"
        y = layer(x)
    torch.testing.assert_close(y, F.conv2d(x, plain.weight, None, 2, groups=6))


def test_a_convolution_that_leaves_its_norm_leaves_the_relu6_too():
    plain = clamped_block().eval()
    fast = copy.deepcopy(plain)
    use_fast_layers(fast)
    fast[0].leave_norm()
    fast[1] = plain[1]
    assert_same(fast, plain, torch.randn(2, 6, 9, 11))


def test_a_clamping_block_folded_for_good_clamps_and_keeps_nothing_of_the_old_one():
    plain = clamped_block().eval()
    fast = copy.deepcopy(plain)
    use_fast_layers(fast)
    fold_batch_norms(fast)
    x = torch.randn(2, 6, 9, 11)
    assert fast[2].conv == (fast[0],)
    assert fast[0].clamps(x)
    torch.testing.assert_close(fast(x), plain(x), rtol=1e-4, atol=1e-5)


def test_an_exported_graph_has_the_layers_by_themselves():
    fast = clamped_block().eval()
    use_fast_layers(fast)
    graph = torch.export.export(fast, (torch.randn(2, 6, 9, 11),)).graph
    names = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    assert any("conv2d" in name for name in names)
    assert not any("mkldnn" in name for name in names)


def test_dilated_convolutions_are_split_into_taps_only_for_training_on_a_cpu():
    layer, x = DilatedConv2d(6, 4, 3, padding=6, dilation=6), torch.empty(1, 6, 8, 8)
    assert layer.train().strategy(x) == "taps"
    assert layer.strategy(x.to("meta")) == "plain"
    assert layer.eval().strategy(x) == "plain"
    with torch.no_grad():
        assert layer.train().strategy(x) == "plain"


@pytest.mark.parametrize(("height", "width", "rate"), [(16, 16, 2), (15, 13, 4), (3, 5, 4)])
def test_grids_are_the_dilated_convolution(height, width, rate):
    plain = nn.Conv2d(6, 6, 3, padding=rate, dilation=rate, groups=6, bias=False)
    assert_same(FoldingConv2d(copy.deepcopy(plain)).train(), plain, torch.randn(2, 6, height, width))


@pytest.mark.parametrize(("height", "width", "rate"), [(12, 12, 6), (12, 12, 24), (30, 9, 12)])
def test_taps_are_the_dilated_convolution(height, width, rate):
    fast = DilatedConv2d(6, 4, 3, padding=rate, dilation=rate).train()
    plain = nn.Conv2d(6, 4, 3, padding=rate, dilation=rate)
    plain.load_state_dict(fast.state_dict())
    assert_same(fast, plain, torch.randn(2, 6, height, width))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_one_switch_gives_plain_layers_of_the_same_function(name, monkeypatch):
    state = random_state(name)
    fast, teacher = Encoder(name, state, True, dilated=True), Teacher(name, state)
    monkeypatch.setenv("CSG_PLAIN_LAYERS", "1")
    plain, plain_teacher = Encoder(name, state, True, dilated=True), Teacher(name, state)
    assert any(isinstance(module, FoldingConv2d) for module in fast.modules())
    own = (FoldingConv2d, FoldedBatchNorm2d, FoldedReLU6, DilatedConv2d)
    assert not any(isinstance(module, own) for module in [*plain.modules(), *plain_teacher.modules()])
    assert type(dilated_conv2d(6, 4, 6)) is nn.Conv2d
    assert list(plain.state_dict()) == list(fast.state_dict())
    for one, other in ((fast.train(), plain.train()), (teacher, plain_teacher)):
        with torch.no_grad():
            found, expected = one(PIXELS)["layer4"], other(PIXELS)["layer4"]
        size = expected.abs().max()
        torch.testing.assert_close(found / size, expected / size, rtol=0, atol=1e-3)
