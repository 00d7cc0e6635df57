"""The error of a quantised graph: what counts as one, and what does not."""

import numpy as np
import pytest
import torch
from torch import nn

from csg_export.int8_judge import Int8Judge, sample_of
from tests.helpers.small_networks import graph

GREY = np.stack([np.full((24, 24, 3), value, np.uint8) for value in range(10, 210, 10)])
"""Twenty images, each of one grey level."""


class Levels(nn.Module):
    """Logits that grow with the grey level, on which `change` is added; `change` knows the level too."""

    def __init__(self, change=lambda level: 0 * level):
        super().__init__()
        self.change = change

    def forward(self, images):
        level = images.float().mean((1, 2, 3))[:, None]
        return level * torch.tensor([1.0, 0, -1]) + self.change(level) * torch.tensor([1.0, -2, 1])


@pytest.fixture(scope="module")
def judge():
    return Int8Judge(graph(Levels()), sample_of([GREY], 64))


def test_the_error_is_the_share_of_each_images_own_variance(judge):
    """(0.1 level)^2 (1 + 4 + 1) of level^2 (1 + 0 + 1), for a bright image as for a dark one."""
    changed = graph(Levels(lambda level: 0.1 * level))
    assert judge.error(changed) == pytest.approx(0.03, rel=1e-4)


def test_a_quarter_of_the_images_may_be_far_off(judge):
    assert judge.error(graph(Levels(lambda level: 1000 * (level > 155)))) == 0
    assert judge.error(graph(Levels(lambda level: 1000 * (level > 145)))) > 1


def test_answers_that_are_not_finite_are_the_largest_error(judge):
    """Even if only one image of twenty has them."""
    assert judge.error(graph(Levels(lambda level: 1 / (level < 195)))) == float("inf")


def test_the_same_number_on_all_logits_is_no_error(judge):
    class Shifted(Levels):
        def forward(self, images):
            return super().forward(images) + 100

    assert judge.error(graph(Shifted())) < 1e-9
