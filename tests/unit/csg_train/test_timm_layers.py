"""The fast layers in timm's networks: where they are, and that they compute the plain function and its gradients."""

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

pytest.importorskip("timm", reason="needs the extra timm")

from csg_export.onnx_graph import strip
from csg_train.models.backbones import Encoder
from csg_train.models.fast_layers import FoldedReLU6, FoldingConv2d, fold_batch_norms
from csg_train.models.lora import add_lora, merged_state
from csg_train.models.sync_batch_norm import synchronise_batch_norms
from csg_train.models.teacher import Teacher
from csg_train.models.timm_layers import FoldedBatchNormAct2d, FoldingConv2dSame

FAST = (
    *("tf_efficientnet_lite0", "mobilenetv3_small_050", "mobilenetv4_conv_small", "resnet18", "regnety_002"),
    *("efficientnet_es", "mixnet_s", "hrnet_w18_small", "ghostnet_100"),
)
"""Networks with layers to replace, one or two of each kind of block."""
PIXELS = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def encoder(name, frozen=True, dilated=False):
    torch.manual_seed(0)
    made = Encoder(f"timm:{name}", None, frozen, dilated=dilated, size=None if dilated else (64, 64))
    for norm in made.modules():
        if isinstance(norm, _BatchNorm):
            nn.init.normal_(norm.running_mean, std=0.1)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.1)
    return made.train()


@pytest.fixture
def plain_encoder(monkeypatch):
    def make(*args, **settings):
        with monkeypatch.context() as patch:
            patch.setenv("CSG_PLAIN_LAYERS", "1")
            return encoder(*args, **settings)

    return make


def results(network):
    """The maps with the running statistics after them, and the gradients."""
    maps = network(PIXELS)
    loss = sum(found.square().mean() for found in maps.values())
    gradients = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    given = [torch.zeros(1) if one is None else one for one in gradients]
    return [*maps.values(), *(one.float() for one in network.buffers())], given


def assert_same_training(fast, plain):
    """The gradient of each weight by its length: a value at the edge of a ReLU may be on the other side of it."""
    for seed in range(2):
        torch.manual_seed(seed)
        maps, gradients = results(fast)
        torch.manual_seed(seed)
        expected_maps, expected_gradients = results(plain)
        assert_alike(maps, expected_maps, 1e-3)
        for one, other in zip(gradients, expected_gradients, strict=True):
            assert (one - other).norm() <= 0.1 * other.norm() + 1e-4


def assert_alike(found, expected, tolerance):
    for one, other in zip(found, expected, strict=True):
        size = other.abs().max().clamp_min(1e-2)
        torch.testing.assert_close(one / size, other / size, rtol=0, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("name", FAST)
def test_the_function_and_its_gradients_are_those_of_timms_layers(name, frozen, plain_encoder):
    fast, plain = encoder(name, frozen), plain_encoder(name, frozen)
    assert any(isinstance(layer, FoldingConv2d) for layer in fast.modules())
    assert not any(isinstance(layer, FoldingConv2d) for layer in plain.modules())
    assert list(fast.state_dict()) == list(plain.state_dict())
    fast.load_state_dict(plain.state_dict())
    assert_same_training(fast, plain)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto", "resnetv2_50"])
def test_networks_of_other_layers_stay_as_they_are(name):
    assert not any(isinstance(layer, FoldingConv2d) for layer in encoder(name).modules())


def test_lite0_clamps_in_its_convolutions_and_keeps_tensorflows_padding():
    layers = [*encoder("tf_efficientnet_lite0").modules()]
    strided = [layer for layer in layers if isinstance(layer, nn.Conv2d) and layer.stride != (1, 1)]
    assert all(type(layer) is FoldingConv2dSame for layer in strided)
    clamped = [layer for layer in layers if isinstance(layer, FoldedReLU6)]
    assert len(clamped) == 32
    x = torch.empty(1)
    assert all(layer.conv[0].clamps(x) for layer in clamped)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv3_small_050", "resnet18"])
def test_norms_folded_for_good_leave_their_activation(name, plain_encoder):
    fast, plain = encoder(name).eval(), plain_encoder(name).eval()
    fold_batch_norms(fast)
    assert not any(isinstance(layer, _BatchNorm) for layer in fast.modules())
    with torch.inference_mode():
        assert_alike(fast(PIXELS).values(), plain(PIXELS).values(), 1e-4)


def test_a_stripped_network_is_a_copy(plain_encoder):
    fast, plain = encoder("tf_efficientnet_lite0").eval(), plain_encoder("tf_efficientnet_lite0").eval()
    bare = strip(fast)
    with torch.inference_mode():
        assert_alike(bare(PIXELS).values(), plain(PIXELS).values(), 1e-4)
        assert_alike(fast(PIXELS).values(), plain(PIXELS).values(), 1e-4)
    own = [layer.conv[0] for layer in bare.modules() if isinstance(layer, FoldedReLU6)]
    assert all(any(conv is layer for layer in bare.modules()) for conv in own)


def test_a_dilated_network_keeps_its_function(plain_encoder):
    fast, plain = encoder("mobilenetv4_conv_small", dilated=True), plain_encoder("mobilenetv4_conv_small", dilated=True)
    assert_same_training(fast, plain)


def test_a_teacher_has_folded_norms(plain_encoder):
    state = {name.removeprefix("stages.model."): t for name, t in encoder("resnet18").state_dict().items()}
    import timm

    whole = timm.create_model("resnet18").state_dict() | state
    teacher = Teacher("timm:resnet18", whole, size=(64, 64))
    assert not any(isinstance(layer, _BatchNorm) for layer in teacher.encoder.modules())
    plain = plain_encoder("resnet18").eval()
    with torch.inference_mode():
        assert_alike(teacher(PIXELS).values(), plain(PIXELS).values(), 1e-4)


def test_low_rank_changes_are_scaled_by_the_folded_norm(plain_encoder):
    fast, plain = encoder("tf_efficientnet_lite0"), plain_encoder("tf_efficientnet_lite0")
    for network in (fast, plain):
        torch.manual_seed(1)
        add_lora(network, 2)
        for name, parameter in network.named_parameters():
            if name.endswith(".up"):
                nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(parameter)))
        network.train()
    assert_alike(fast(PIXELS).values(), plain(PIXELS).values(), 1e-4)
    merged = merged_state(fast)
    assert set(merged) == set(encoder("tf_efficientnet_lite0").state_dict())


def test_synchronised_norms_keep_their_activation():
    network = encoder("tf_efficientnet_lite0", frozen=False)
    folded = [layer for layer in network.modules() if isinstance(layer, FoldedBatchNormAct2d)]
    count = synchronise_batch_norms(network)
    assert count == len(folded) == 48
    assert not any(isinstance(layer, FoldedBatchNormAct2d) for layer in network.modules())
    assert sum(isinstance(layer, FoldedReLU6) for layer in network.modules()) == 32
    assert not any(layer.relu6 for layer in network.modules() if isinstance(layer, FoldingConv2d))
