"""The building blocks of contrastive methods at their edges; their values are checked in test_published.py."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from csg.errors import UsageError
from csg_train.methods.contrast import Projection, a_pool, attention, info_nce, patch_means, positions, projection_head
from csg_train.methods.contrastive import ContrastiveMethod
from csg_train.methods.settings import ContrastiveSettings
from tests.helpers.tiny_student import TinyStudent

maps = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**16))


def random_map(shape):
    *bchw, seed = shape
    return torch.randn(bchw, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def attention_of(v, grid=1):
    return attention(positions(v), patch_means(v, grid))


@given(maps, st.floats(1e-30, 1e30))
def test_attention_is_a_distribution_at_any_scale(shape, scale):
    weights = attention_of((random_map(shape) * scale).float())
    assert torch.all(weights >= 0)
    torch.testing.assert_close(weights.sum(2), torch.ones(len(weights), 1), rtol=1e-5, atol=0)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_map_without_positive_values_gets_uniform_weights(value):
    assert torch.equal(attention_of(torch.full((2, 3, 4, 5), value)), torch.full((2, 1, 20), 1 / 20))


@pytest.mark.parametrize("scale", [0, 1e-38, 1e-20, 1e-6, 1e15])
def test_gradients_are_finite_at_any_scale(scale):
    """A patch of zeros among others is as usual after a ReLU; nothing is divided by zero for it."""
    v = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * scale
    v[0] = 0
    v[1, :, :2, :2] = 0
    v.requires_grad_()
    pooled = a_pool(positions(v), attention_of(v, 2))
    (gradient,) = torch.autograd.grad(pooled.sum(), v)
    assert torch.isfinite(pooled).all()
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() < 10
    assert not gradient[0].any()


@pytest.mark.parametrize("pooling", ["attached", "detached"])
def test_negative_values_neither_count_nor_get_a_gradient(pooling):
    """For stages that end without a ReLU, as MobileNetV2's layer1 to layer3."""
    projection = Projection({"layer3": 6}, pooling, mlp=True)
    v = torch.randn(2, 6, 5, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = projection({"layer3": v})["layer3"]
    torch.testing.assert_close(found, projection({"layer3": v.relu()})["layer3"])
    (gradient,) = torch.autograd.grad(found[:, 0].sum(), v)
    assert not gradient[v < 0].any()
    assert gradient[v > 0].all()


@pytest.mark.parametrize("pooling", ["attached", "detached", "mean"])
def test_the_gradient_flows_through_the_attention_if_it_is_attached(pooling):
    projection = Projection({"layer4": 3}, pooling, mlp=False, grid=2)
    projection.heads["layer4"] = nn.Identity()
    v, towards = torch.rand(2, 3, 4, 4, requires_grad=True), torch.randn(8, 3)
    weights = patch_means(v, 2).expand(2, -1, -1) if pooling == "mean" else attention_of(v, 2)
    pooled = a_pool(positions(v), weights if pooling == "attached" else weights.detach())
    (slow,) = torch.autograd.grad((F.normalize(pooled, dim=1) * towards).sum(), v)
    (found,) = torch.autograd.grad((projection({"layer4": v})["layer4"] * towards).sum(), v)
    torch.testing.assert_close(found, slow)


@pytest.mark.parametrize("pooling", ["attached", "detached", "mean"])
def test_pooling_is_in_float32_under_autocast(pooling):
    v = (torch.randn(2, 8, 12, 12) + 0.5).bfloat16().requires_grad_()
    projection = Projection({"layer4": 8}, pooling, mlp=False, grid=8)
    projection.heads["layer4"] = nn.Identity()
    found = projection({"layer4": v})["layer4"]
    gradient = torch.autograd.grad(found[:, 0].sum(), v)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = projection({"layer4": v})["layer4"]
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, found)
    assert torch.equal(torch.autograd.grad(mixed[:, 0].sum(), v)[0], gradient[0])


def test_a_map_smaller_than_its_grid_is_refused():
    with pytest.raises(UsageError, match="a map of 7 x 9 cannot be divided into 8 x 8 patches"):
        patch_means(torch.rand(1, 2, 7, 9), 8)


def test_info_nce_of_anchors_equal_to_their_keys_is_small_and_ranked_first():
    vectors = F.normalize(torch.eye(8), dim=1)
    loss, ranked = info_nce(vectors[:4], vectors[:4], vectors[4:], 0.07)
    assert ranked == 1
    assert loss < 1e-5


def test_a_projection_head_has_a_hidden_layer_of_the_same_width():
    head = projection_head(6)
    assert [type(layer).__name__ for layer in head] == ["Linear", "ReLU", "Linear"]
    assert (head[0].out_features, head[2].out_features) == (6, 128)


def slow_weights(v, by):
    """Section 4, position by position, of v (C, P)."""
    mean = v.mean(1)
    if by == "norm":
        scores = torch.stack([v[:, p].square().sum().sqrt() for p in range(v.shape[1])])
    else:
        scores = torch.stack([((v[:, p] * mean).sum() / len(v) ** 0.5).exp() for p in range(v.shape[1])])
    return scores / scores.sum()


@pytest.mark.parametrize("by", ["norm", "softmax"])
def test_a_pool_of_maps_with_negative_values_is_the_slow_sum(by):
    v = random_map((3, 5, 4, 6, 1))
    found = a_pool(positions(v, by), attention(positions(v, by), patch_means(v, 2), by))
    patches = [v[b, :, y : y + 2, x : x + 3].flatten(1) for b in range(3) for y in (0, 2) for x in (0, 3)]
    expected = torch.stack([(slow_weights(patch, by) * patch).sum(1) for patch in patches])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("by", ["norm", "softmax"])
def test_a_map_of_zeros_has_uniform_weights_by_any_formula(by):
    v = torch.zeros(1, 3, 2, 2, requires_grad=True)
    weights = attention(positions(v, by), patch_means(v), by)
    assert torch.equal(weights, torch.full((1, 1, 4), 1 / 4))
    (gradient,) = torch.autograd.grad((weights * torch.arange(4.0)).sum(), v)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(("backbone", "by"), [("resnet18", "relu"), ("timm:vit_tiny_patch16_224", "norm")])
def test_the_family_chooses_the_formula_unless_the_user_does(backbone, by):
    student = TinyStudent()
    student.encoder.name = backbone
    for chosen in (None, "softmax"):
        method = ContrastiveMethod(student, None, ContrastiveSettings(apool_by=chosen))
        assert method.projection.by == (chosen or by)
