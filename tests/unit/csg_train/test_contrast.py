"""The contrastive formulas against slow, obvious references (docs/method.md sections 3 and 4)."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from csg_train.methods.contrast import (
    KeyQueue,
    Projection,
    a_pool,
    attention,
    ema_update,
    info_nce,
    momentum_copy,
    projection_head,
)

maps = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**16))


def random_map(shape):
    *bchw, seed = shape
    return torch.randn(bchw, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_attention(v):
    """a_ij of docs/method.md section 4, position by position."""
    v = np.maximum(v, 0)
    _, height, width = v.shape
    mean = v.mean((1, 2))
    scores = np.array([[float(v[:, i, j] @ mean) for j in range(width)] for i in range(height)])
    return scores / scores.sum() if scores.sum() > 0 else np.full((height, width), 1 / (height * width))


@given(maps)
def test_a_pool_is_the_formula(shape):
    v = random_map(shape)
    weights = attention(v)
    pooled = a_pool(v, weights)
    for b in range(len(v)):
        slow = slow_attention(v[b].numpy())
        np.testing.assert_allclose(weights[b].numpy(), slow, rtol=1e-4, atol=1e-6)
        by_hand = sum(
            slow[i, j] * np.maximum(v[b, :, i, j].numpy(), 0) for i in range(v.shape[2]) for j in range(v.shape[3])
        )
        np.testing.assert_allclose(pooled[b].numpy(), by_hand, rtol=1e-4, atol=1e-5)


@given(maps, st.floats(1e-30, 1e10))
def test_attention_is_a_distribution_at_any_scale(shape, scale):
    weights = attention((random_map(shape) * scale).float())
    assert torch.all(weights >= 0)
    torch.testing.assert_close(weights.sum((1, 2)), torch.ones(len(weights)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_map_without_positive_values_gets_uniform_weights(value):
    assert torch.equal(attention(torch.full((2, 3, 4, 5), value)), torch.full((2, 4, 5), 1 / 20))


@pytest.mark.parametrize("pooling", ["attached", "detached", "mean"])
def test_the_gradient_flows_through_the_attention_if_it_is_attached(pooling):
    projection = Projection({"layer4": 3}, pooling, mlp=False)
    projection.heads["layer4"] = nn.Identity()
    v = torch.rand(2, 3, 4, 4, requires_grad=True)
    weights = torch.full((2, 4, 4), 1 / 16) if pooling == "mean" else attention(v)
    pooled = a_pool(v, weights if pooling == "attached" else weights.detach())
    towards = torch.randn(2, 3)
    (slow,) = torch.autograd.grad((F.normalize(pooled, dim=1) * towards).sum(), v)
    (found,) = torch.autograd.grad((projection({"layer4": v})["layer4"] * towards).sum(), v)
    torch.testing.assert_close(found, slow)


def test_info_nce_is_the_formula():
    generator = torch.Generator().manual_seed(0)
    anchor, positive, queue = (F.normalize(torch.randn(n, 8, generator=generator), dim=1) for n in (5, 5, 20))
    loss, ranked = info_nce(anchor, positive, queue, 0.07)
    slow, first = [], []
    for a, p in zip(anchor.double().numpy(), positive.double().numpy(), strict=True):
        good = np.exp(a @ p / 0.07)
        bad = [np.exp(a @ k / 0.07) for k in queue.double().numpy()]
        slow.append(-np.log(good / (good + sum(bad))))
        first.append(good > max(bad))
    assert loss.item() == pytest.approx(np.mean(slow), rel=1e-5)
    assert ranked.item() == pytest.approx(np.mean(first))


def test_info_nce_of_anchors_equal_to_their_keys_is_small_and_ranked_first():
    vectors = F.normalize(torch.eye(8), dim=1)
    loss, ranked = info_nce(vectors[:4], vectors[:4], vectors[4:], 0.07)
    assert ranked == 1
    assert loss < 1e-5


@given(st.integers(1, 7), st.lists(st.integers(1, 10), max_size=6))
def test_queue_is_first_in_first_out(size, batches):
    queue = KeyQueue(size, dim=2)
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(size))
    slow = [tuple(key) for key in queue.keys.tolist()]
    number = 0
    for count in batches:
        keys = torch.arange(number, number + count).float()[:, None].repeat(1, 2)
        number += count
        queue.enqueue(keys)
        slow = (slow + [tuple(key) for key in keys.tolist()])[-size:]
    assert sorted(map(tuple, queue.keys.tolist())) == sorted(slow)
    oldest_first = torch.roll(queue.keys, -int(queue.next), 0)
    assert [tuple(key) for key in oldest_first.tolist()] == slow


def test_momentum_copy_follows_and_is_never_trained():
    head = projection_head(6)
    assert [type(layer).__name__ for layer in head] == ["Linear", "ReLU", "Linear"]
    assert (head[0].out_features, head[2].out_features) == (6, 128)
    average = momentum_copy(head)
    before = copy.deepcopy(average)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(1)
    ema_update(average, head, 0.9)
    for old, kept, new in zip(before.parameters(), average.parameters(), head.parameters(), strict=True):
        assert not kept.requires_grad
        torch.testing.assert_close(kept, 0.9 * old + 0.1 * new)
