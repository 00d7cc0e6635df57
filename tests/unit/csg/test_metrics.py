"""Metrics and confidence intervals against their definitions."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from csg.confidence_intervals import SegmentationBootstrap, mean_class_accuracy_interval, wilson
from csg.metrics import BINS, PixelConfusion, Reliability, classification_scores, segmentation_scores


def test_the_calibration_error_follows_its_definition():
    rng, found = np.random.default_rng(0), Reliability()
    confidences = np.concatenate([rng.random(5000).round(6), [0, 1, 1 / BINS, 2 / BINS, 0.4]])
    correct = rng.random(len(confidences)) < confidences**2
    for confidence, is_correct in zip(confidences, correct, strict=True):
        found.add(float(confidence), bool(is_correct))
    ece, edges = 0.0, np.arange(BINS + 1) / BINS
    for low, high in itertools.pairwise(edges):
        inside = (confidences.round(6) > low) & (confidences.round(6) <= high) | (confidences == 0) & (low == 0)
        ece += abs(correct[inside].mean() - confidences[inside].mean()) * inside.mean()
    assert found.images.sum() == len(confidences)
    assert found.ece == pytest.approx(ece, abs=2e-4)
    assert found.ece > 0.1


def test_intervals_equal_published_values_and_estimates():
    """Wilson's interval against published values, the bootstrap against the normal approximation."""
    low, high = wilson(np.array([0, 5, 81, 0]), np.array([10, 10, 263, 0]))
    assert low[:3] == pytest.approx([0, 0.2366, 0.2553], abs=1e-4)  # Newcombe 1998, table I: 81 of 263
    assert high[:3] == pytest.approx([0.2775, 0.7634, 0.3662], abs=1e-4)
    assert np.isnan(low[3])
    confusion = np.array([[900, 100, 0], [5, 5, 0], [0, 0, 0]])
    low, high = mean_class_accuracy_interval(confusion)
    spread = np.sqrt(0.9 * 0.1 / 1000 + 0.5 * 0.5 / 10) / 2
    assert (low, high) == pytest.approx((0.7 - 1.96 * spread, 0.7 + 1.96 * spread), abs=0.02)


def test_the_bootstrap_of_the_miou_does_not_depend_on_the_order():
    rng, counts = np.random.default_rng(0), PixelConfusion(4)
    matrices = []
    for _ in range(40):
        true = rng.integers(0, 4, 500).astype(np.uint8)
        wrong = rng.random(500) < rng.random() * 0.6
        matrices.append(counts.matrix_of(true, np.where(wrong, rng.integers(0, 4, 500), true).astype(np.uint8)))
    forward, backward = SegmentationBootstrap(4), SegmentationBootstrap(4)
    for index, matrix in enumerate(matrices):
        forward.add(index, matrix)
    for index, matrix in reversed(list(enumerate(matrices))):
        backward.add(index, matrix)
    assert forward.miou() == backward.miou()
    drawn = [segmentation_scores(sum(matrices[p] for p in rng.integers(0, 40, 40))).miou for _ in range(1000)]
    assert forward.miou() == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.015)
    assert SegmentationBootstrap(4).miou() is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=50))
def test_scores_equal_those_of_scikit_learn(pairs):
    true, predicted = np.array(pairs).T
    scores = classification_scores(true, predicted, 4)
    assert scores.accuracy == pytest.approx(accuracy_score(true, predicted))
    present = np.unique(true)
    slow = {c: np.mean([p == c for t, p in pairs if t == c]) for c in present}
    assert scores.mean_class_accuracy == pytest.approx(np.mean(list(slow.values())))
    assert {c: scores.per_class[c] for c in present} == pytest.approx(slow)
    assert np.isnan(scores.per_class[[c for c in range(4) if c not in present]]).all()
    if set(predicted) <= set(present):
        assert scores.mean_class_accuracy == pytest.approx(balanced_accuracy_score(true, predicted))
