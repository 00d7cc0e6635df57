"""SWAD, WiSE-FT and running statistics against slow, obvious references (docs/method.md section 11)."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from csg_train.models.batch_norm import measure_running_stats
from csg_train.training.dense_average import DenseAverage, averaged_span
from csg_train.training.interpolation import Interpolation, smallest_good
from csg_train.training.measurements import HeldOutScore
from tests.helpers.tiny_student import nudge, tiny


def slow_span(losses, r):
    """Algorithm 1 of Cha et al. 2021, with measurements counted from 1 as there."""
    E = {i + 1: loss for i, loss in enumerate(losses)}
    start, end, threshold = 0, len(losses), None
    for i in range(1, len(losses) + 1):
        if threshold is None:
            if i >= 3 and E[i - 2] == min(E[i], E[i - 1], E[i - 2]):
                start, threshold = i - 2, r / 3 * (E[i] + E[i - 1] + E[i - 2])
        elif i >= 6 and threshold < min(E[j] for j in range(i - 5, i + 1)):
            end = i - 6
            break
    return (start - 1 if start else None), end - 1


def random_losses(seed):
    """Losses that fall, then rise."""
    made = np.random.default_rng(seed)
    count, bottom = int(made.integers(1, 20)), made.uniform(0, 15)
    return [float(0.5 + 0.1 * abs(i - bottom) + made.uniform(0, 0.3)) for i in range(count)]


def test_the_span_of_swad_is_that_of_the_published_algorithm():
    losses = [random_losses(seed) for seed in range(300)]
    found = [averaged_span(some, 1.3) for some in losses]
    assert found == [slow_span(some, 1.3) for some in losses]
    ends = [end < len(some) - 1 for (_, end), some in zip(found, losses, strict=True)]
    starts = [start is not None for start, _ in found]
    assert any(ends) and not all(ends)
    assert any(starts) and not all(starts)


@pytest.mark.parametrize("seed", range(12))
def test_the_mean_of_swad_is_that_of_every_step_of_its_span(seed):
    student, _ = tiny()
    losses, every = random_losses(seed), 1 + seed % 3
    dense, states = DenseAverage(student, 1.3), {}
    for step in range(1, every * len(losses) + 1):
        nudge(student, seed=step)
        dense.update(step)
        states[step] = {name: value.clone() for name, value in student.state_dict().items()}
        if step % every == 0:
            dense.observe(step, losses[step // every - 1])
            dense.observe(step, 99.0)  # measured again after an interruption
        resumed = DenseAverage(student, 1.3)
        resumed.unpack(dense.pack())
        dense = resumed
    assert len(dense.kept) <= 6
    start, end = slow_span(losses, 1.3)
    if start is None:
        assert dense.span() is None
        return
    first, last = start * every + 1, (end + 1) * every
    assert dense.span() == (first, last)
    for name, value in dense.mean().items():
        slow = torch.stack([states[step][name].double() for step in range(first, last + 1)]).mean(0)
        torch.testing.assert_close(value.double(), slow, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("probe", [0, 2])
def test_wise_interpolates_from_where_the_encoder_begins_to_train(probe):
    student, _ = tiny()
    kept, states = Interpolation(student, probe), []
    for step in range(4):
        states.append({name: value.clone() for name, value in student.state_dict().items()})
        kept.update(step)
        nudge(student, seed=step)
        resumed = Interpolation(student, probe)
        resumed.unpack(kept.pack())
        kept = resumed
    end = student.state_dict()
    for name, value in kept.at(0.3, end).items():
        moves = probe or name.startswith("encoder.")
        expected = 0.7 * states[probe][name] + 0.3 * end[name] if moves else end[name]
        torch.testing.assert_close(value, expected)


def test_the_smallest_alpha_within_a_standard_error_of_the_best_is_chosen():
    scores = dict(zip((0.0, 0.2, 0.6, 1.0), (0.5, 0.87, 0.88, 0.9), strict=True))  # error of 0.9: 0.03 or 0.003
    assert smallest_good({alpha: HeldOutScore(score, 100) for alpha, score in scores.items()}) == 0.2
    assert smallest_good({alpha: HeldOutScore(score, 10_000) for alpha, score in scores.items()}) == 1.0
    assert smallest_good({0.0: HeldOutScore(1.0, 10), 1.0: HeldOutScore(1.0, 10)}) == 0.0


class Norms(nn.Module):
    """A frozen norm, a norm that trains, dropout, and another norm that trains."""

    def __init__(self):
        super().__init__()
        self.frozen, self.first, self.drop, self.second = (
            nn.BatchNorm1d(3), nn.BatchNorm1d(3, momentum=0.2), nn.Dropout(0.5), nn.BatchNorm1d(3)
        )  # fmt: skip

    def forward(self, x):
        return self.second(self.drop(self.first(self.frozen(x)).relu()))

    def train(self, mode=True):
        super().train(mode)
        self.frozen.eval()
        return self


def test_running_statistics_are_the_means_over_the_batches_of_norms_that_train_alone():
    torch.manual_seed(0)
    network = Norms().train()
    nn.init.uniform_(network.frozen.running_mean)
    nn.init.uniform_(network.first.running_mean, 50, 60)
    nn.init.uniform_(network.first.weight, 1, 2)
    before = network.frozen.running_mean.clone()
    batches = [torch.randn(count, 3) + shift for count, shift in ((4, 0.0), (6, 2.0), (5, -1.0))]
    expected = {"first": [], "second": []}
    for x in batches:
        x = (x - before) / (1 + 1e-5) ** 0.5
        expected["first"].append((x.mean(0), x.var(0)))
        x = network.first.weight * (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()
        x = x.relu()
        expected["second"].append((x.mean(0), x.var(0)))
    modes = [part.training for part in network.modules()]
    measure_running_stats(network, batches)
    for name, norm in (("first", network.first), ("second", network.second)):
        means, variances = zip(*expected[name], strict=True)
        torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0))
        torch.testing.assert_close(norm.running_var, torch.stack(variances).mean(0))
    assert torch.equal(network.frozen.running_mean, before)
    assert [part.training for part in network.modules()] == modes
    assert (network.first.momentum, network.second.momentum) == (0.2, 0.1)


def test_a_network_without_norms_that_train_is_not_run():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False))
    measure_running_stats(network, itertools.repeat(None))
