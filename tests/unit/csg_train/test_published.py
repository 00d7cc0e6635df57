"""The formulas of docs/method.md on small tensors, against slow loops: what the published operations give.

RandAugment's operations are in test_published_augmentation.py.
"""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from csg_train.methods import load_method
from csg_train.methods.base import Batch
from csg_train.methods.contrast import KeyQueue, Projection, StageQueues, a_pool, attention, patch_means, positions
from csg_train.recipe import Optim
from csg_train.training.optimizer import make_optimiser, rate_factor, set_learning_rates
from tests.helpers.tiny_student import nudge, tiny

SHAPES = ((3, 4, 5), (2, 1, 6), (5, 3, 1), (4, 1, 1))
MOMENTUM, TAU = 0.999, 0.07


def map_of(shape, seed=0):
    """Random values, about a third of them negative, in float64."""
    return np.random.default_rng(seed).normal(0.4, 1, shape)


def slow_attention(v):
    """Section 4: a_ij = <v_ij, v_mean> / sum over positions, of v (C, H, W) after a ReLU."""
    v = np.maximum(v, 0)
    mean = v.mean((1, 2))
    score = np.array([[float(v[:, i, j] @ mean) for j in range(v.shape[2])] for i in range(v.shape[1])])
    return score / score.sum() if score.sum() > 0 else np.full(v.shape[1:], 1 / score.size)


def slow_pool(v, weights):
    """Section 4: v_hat = sum a_ij v_ij."""
    v = np.maximum(v, 0)
    return sum(weights[i, j] * v[:, i, j] for i in range(v.shape[1]) for j in range(v.shape[2]))


def slow_gradient(function, v, by=1e-6):
    """The gradient of a scalar function of v, from differences."""
    gradient = np.zeros_like(v)
    for index in np.ndindex(v.shape):
        up, down = v.copy(), v.copy()
        up[index] += by
        down[index] -= by
        gradient[index] = (function(up) - function(down)) / (2 * by)
    return gradient


def pooled(v, detached=False, grid=1):
    """What csg computes, of a map (B, C, H, W)."""
    values, means = positions(v), patch_means(v, grid)
    return a_pool(values, attention(values.detach() if detached else values, means))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_pool(shape):
    v = map_of((2, *shape))
    slow = [slow_pool(image, slow_attention(image)) for image in v]
    np.testing.assert_allclose(pooled(torch.tensor(v)).numpy(), slow, rtol=1e-10)
    np.testing.assert_allclose(pooled(torch.tensor(v).float()).numpy(), slow, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("detached", [False, True])
def test_the_gradient_of_a_pool(shape, detached):
    """Section 6: through the attention as published, or with the weights as constants."""
    v, towards = map_of(shape), np.random.default_rng(1).normal(size=shape[0])
    fixed = slow_attention(v)
    slow = slow_gradient(lambda u: towards @ slow_pool(u, fixed if detached else slow_attention(u)), v)
    leaf = torch.tensor(v[None], requires_grad=True)
    (found,) = torch.autograd.grad(pooled(leaf, detached)[0] @ torch.tensor(towards), leaf)
    np.testing.assert_allclose(found[0].numpy(), slow, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("grid", [1, 2])
def test_autograd_of_attached_a_pool_is_consistent(grid):
    v = torch.rand(2, 3, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
    assert torch.autograd.gradcheck(lambda u: pooled(u, grid=grid), v.requires_grad_())


def slow_patches(size):
    """Section 5: 8 runs of rows or columns, as equal as possible."""
    return [[i for i in range(size) if i * 8 // size == patch] for patch in range(8)]


def slow_projection(head, vector):
    """Section 2: Linear, ReLU, Linear, and the length is 1."""
    first, last = ([p.detach().double().numpy() for p in layer.parameters()] for layer in (head[0], head[2]))
    z = last[0] @ np.maximum(first[0] @ vector + first[1], 0) + last[1]
    return z / np.linalg.norm(z)


@pytest.mark.parametrize("size", [(8, 8), (12, 12), (13, 19), (16, 24)])
def test_dense_patches(size):
    """Section 5: each patch of 8 x 8 is pooled and projected alone, the key with the weights of the student's map."""
    student, teacher, mirror = (map_of((2, 3, *size), seed) for seed in range(3))
    torch.manual_seed(0)
    projection = Projection({"layer4": 3}, "attached", mlp=True, grid=8)
    of_student, of_teacher, of_mirror = ({"layer4": torch.tensor(m).float()} for m in (student, teacher, mirror))
    with torch.no_grad():
        anchors, keys = projection(of_student)["layer4"], projection(of_teacher, of_mirror)["layer4"]
    rows, columns = (slow_patches(n) for n in size)
    assert {len(run) for run in rows} <= {size[0] // 8, size[0] // 8 + 1}
    cut = [(i, row, column) for i in range(2) for row in rows for column in columns]
    assert len(cut) == len(anchors) == len(keys) == 2 * 64
    for number, (i, row, column) in enumerate(cut):
        a, b, c = (m[i][:, row][:, :, column] for m in (student, teacher, mirror))
        for found, slow in ((anchors, slow_pool(a, slow_attention(a))), (keys, slow_pool(b, slow_attention(c)))):
            projected = slow_projection(projection.heads["layer4"], slow)
            np.testing.assert_allclose(found[number].numpy(), projected, rtol=1e-4, atol=1e-5)


def unit(rows, seed=0):
    return F.normalize(torch.randn(rows, 6, generator=torch.Generator().manual_seed(seed)), dim=1)


def slow_info_nce(anchors, keys, queue):
    """Section 3, and its gradient to the anchors: (sum_k p_k z_k - z^+) / tau, of the mean over the batch."""
    losses, gradients = [], []
    for anchor, key in zip(anchors, keys, strict=True):
        exponentials = [np.exp(anchor @ k / TAU) for k in [key, *queue]]
        losses.append(-np.log(exponentials[0] / sum(exponentials)))
        pulled = sum(e * k for e, k in zip(exponentials, [key, *queue], strict=True)) / sum(exponentials)
        gradients.append((pulled - key) / TAU / len(anchors))
    return np.mean(losses), np.array(gradients)


def test_info_nce_over_steps_that_wrap_the_queue():
    """Section 3: batches of 4, 4, 3, 4 and a queue of 10; keys enter after the loss, the oldest leave."""
    queues = StageQueues(["layer4"], 10)
    queues.queues["layer4"] = KeyQueue(10, dim=6)
    slow = list(queues.queues["layer4"].keys.double().numpy())
    for step, size in enumerate((4, 4, 3, 4)):
        anchors, keys = unit(size, 2 * step).requires_grad_(), unit(size, 2 * step + 1)
        losses, _ = queues.contrast({"layer4": anchors}, {"layer4": keys}, TAU)
        expected, pull = slow_info_nce(anchors.detach().double().numpy(), keys.double().numpy(), slow)
        assert losses["layer4"].item() == pytest.approx(expected, rel=1e-5)
        (gradient,) = torch.autograd.grad(losses["layer4"], anchors)
        np.testing.assert_allclose(gradient.numpy(), pull, rtol=1e-4, atol=1e-5)
        queues.enqueue()
        slow = (slow + list(keys.double().numpy()))[-10:]


@given(st.integers(1, 7), st.lists(st.integers(1, 10), max_size=6))
def test_the_queue_is_first_in_first_out(size, batches):
    """Also where its size is no multiple of the batch, and where a batch is larger than the queue."""
    queue = KeyQueue(size, dim=2)
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(size))
    slow, number = [tuple(key) for key in queue.keys.tolist()], 0
    for count in batches:
        keys = torch.arange(number, number + count).float()[:, None].repeat(1, 2)
        number += count
        queue.enqueue(keys)
        slow = (slow + [tuple(key) for key in keys.tolist()])[-size:]
    assert [tuple(key) for key in torch.roll(queue.keys, -int(queue.next), 0).tolist()] == slow


def test_the_key_heads_are_a_moving_average_updated_once_a_step():
    """Section 2: h~ starts as h, then h~ <- m h~ + (1 - m) h before the keys of each later step; the teacher stays."""
    student, teacher = tiny()
    frozen = copy.deepcopy(teacher.state_dict())
    kind = load_method("csg")
    method = kind(student, teacher, kind.Settings(queue=8)).train()
    pixels = torch.randint(0, 256, (2, 4, 16, 16, 3), dtype=torch.uint8)
    slow = [p.detach().double().numpy() for p in method.projection.parameters()]
    for step in range(4):
        keys = [p.detach().numpy() for p in method.key_projection.parameters()]
        for found, expected in zip(keys, slow, strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
        losses, _ = method(Batch(pixels, torch.arange(4) % 3))
        sum(losses.values()).backward()
        assert not any(p.requires_grad or p.grad is not None for p in method.key_projection.parameters())
        nudge(method.projection, by=1, seed=step)
        now = [p.detach().double().numpy() for p in method.projection.parameters()]
        slow = [MOMENTUM * mean + (1 - MOMENTUM) * h for mean, h in zip(slow, now, strict=True)]
        method.after_step()
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, frozen[name])


def test_no_gradient_flows_into_the_keys():
    """Sections 3 and 4: also not through the student's attention on the k-view."""
    student, teacher = tiny()
    kind = load_method("csg")
    method = kind(student, teacher, kind.Settings(queue=8)).train()
    keys = method.keys(torch.randint(0, 256, (4, 16, 16, 3), dtype=torch.uint8))
    assert not any(vectors.requires_grad for vectors in keys.values())


def test_the_rates_of_200_steps():
    """Section 6: 1e-4 for heads, a tenth for the backbone, 100 steps of warm-up, polynomial decay of power 0.9."""
    student, teacher = tiny()
    kind = load_method("csg")
    method, optim = kind(student, teacher, kind.Settings(queue=8)), Optim()
    optimiser = make_optimiser(method, optim)
    for i in range(200):
        factor = (0.01 + 0.99 * i * i / 10_000 if i < 100 else 1) * (1 - i / 200) ** 0.9
        set_learning_rates(optimiser, method, optim, rate_factor(i, 200, optim))
        rates = {group["name"]: group["lr"] for group in optimiser.param_groups}
        slow = {"layer3": 1e-5 * factor, "layer4": 1e-5 * factor, "heads": 1e-4 * factor}
        assert rates == pytest.approx(slow)
