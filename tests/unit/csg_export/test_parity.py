"""The comparison of a stage with PyTorch, on plain arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csg_export.parity import FINITE, ParityStats
from csg_export.precisions import PRECISIONS
from csg_export.runners import Predictions


def compare(expected, got, tolerance=PRECISIONS["fp32"].tolerance):
    stats = ParityStats(tolerance)
    stats.add(len(got), Predictions(expected), Predictions(got))
    return stats


def test_a_stage_outside_its_tolerance_fails():
    good = np.eye(4, dtype=np.float32)
    assert compare(good, good + 1e-5).passed
    assert compare(good, good + 1e-5).result("x", "y").agreement == 1
    for bad in (good + 1, np.full_like(good, np.nan), np.where(good, np.inf, good), good[::-1]):
        assert not compare(good, bad).passed
    assert not compare(good, np.full_like(good, np.nan), FINITE).passed


def test_near_ties_do_not_count():
    torn = np.array([[1, 1 - 1e-6], [1, 0]], np.float32)
    other = np.array([[1, 1 + 1e-6], [1, 0]], np.float32)
    assert compare(torn, other).passed
    assert compare(torn, other).result("x", "y").agreement == 0.5


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(2, 5))
def test_the_figures_equal_those_of_plain_loops(seed, images, classes):
    rng = np.random.default_rng(seed)
    true, got = rng.normal(size=(2, images, classes))
    stage = compare(true, got).result("x", "y")
    softmax = [[np.exp(row) / np.exp(row).sum() for row in logits] for logits in (true, got)]
    kl = [sum(p * np.log(p / q) for p, q in zip(*pair, strict=True)) for pair in zip(*softmax, strict=True)]
    assert stage.kl == pytest.approx(np.mean(kl), abs=1e-9)
    assert stage.max_abs_diff == pytest.approx(np.abs(true - got).max())
    assert stage.mean_abs_diff == pytest.approx(np.abs(true - got).mean())
    assert stage.agreement == np.mean([a.argmax() == b.argmax() for a, b in zip(true, got, strict=True)])
